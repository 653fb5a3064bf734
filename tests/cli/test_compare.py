from __future__ import annotations

import errno
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from qlib_ext.cli import main as cli
from qlib_ext.tracking.buffered_client import BufferedMlflowClient
from tests.report.comparison.conftest import EQUAL, Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    for seed in range(2):
        made.run(f"equal {seed}", seed=seed, skill=0.02, params=EQUAL)
        made.run(f"cqb {seed}", seed=seed, skill=0.05)
    made.run("drawn", experiment="drawn", seed=0, summary={"synthetic": True, "synthetic_seed": 4})
    made.run("[bold]odd[/bold]", seed=3, status="FAILED")
    return made


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of `qlib-ext compare` with these arguments; 0 where it just returns."""
    monkeypatch.setattr(sys, "argv", ["qlib-ext", "compare", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


class TestCompare:
    def test_tables_page_and_files(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "80")
        assert run(monkeypatch, "main", "--tracking-uri", store.uri) == 0
        text = capsys.readouterr().out
        tables, _, _ = text.partition("\N{CHECK MARK} ")
        assert max(map(len, tables.splitlines())) <= 80
        assert "\N{HORIZONTAL ELLIPSIS}" not in tables
        assert "EqualWeighting " in tables
        assert "+0.0" in tables
        assert "Against EqualWeighting" in text
        assert "0.0500 ±" in text
        assert "left out [bold]odd[/bold]" in text
        assert "not finished: MLflow has it as FAILED" in " ".join(text.split())
        out = tmp_path / "reports" / "comparisons" / "main"
        assert {path.name for path in out.iterdir()} == {
            "comparison.html",
            "groups.csv",
            "runs.csv",
            "tests.csv",
            "configuration.csv",
        }
        assert str(out / "comparison.html") in text
        groups = pd.read_csv(out / "groups.csv", index_col="group")
        assert groups["IC"].to_dict() == {"CQB": 0.05, "EqualWeighting": 0.02}
        assert groups["runs"].tolist() == [2, 2]
        runs = pd.read_csv(out / "runs.csv")
        assert runs.groupby("group")["seed"].apply(list).to_dict() == {
            "CQB": [0, 1],
            "EqualWeighting": [0, 1],
        }
        tests = pd.read_csv(out / "tests.csv").set_index(["measure", "group"])
        assert tests.loc[("RankIC", "CQB"), "difference"] > 0.02

    def test_a_synthetic_market_is_said_first(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert run(monkeypatch, "drawn", "--tracking-uri", store.uri) == 0
        assert capsys.readouterr().out.startswith("Synthetic market: a program drew it")

    def test_a_damaged_run_is_left_out_and_an_error(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        client = BufferedMlflowClient(store.uri)
        evil = "dam\nwarning: aged\x1b[2J\u202e"
        for name, sums in (("whole", True), (evil, True), ("old", False)):
            run_id = store.run(name, experiment="turned", seed=len(name))
            if sums:
                client.log_artifacts(run_id, client.download_artifacts(run_id, "ranking"), "ranking")
                client.log_checksums(run_id)
            if name == evil:
                MlflowClient(store.uri).log_text(run_id, "no table", "ranking/daily.parquet")
        monkeypatch.chdir(tmp_path)
        assert run(monkeypatch, "turned", "--tracking-uri", store.uri) == 2
        told = capsys.readouterr()
        shown = r"dam\nwarning: aged\u001b[2J\u202e"
        assert (
            f"error: compared without 1 run: {shown}: its artifacts cannot be read: the artifact" in told.err
        )
        assert "old (" in told.err.partition("no checksums of what was read")[0]
        assert f"left out {shown}" in " ".join(told.out.split())
        assert not set("\x1b\u202e") & set(told.out + told.err)
        assert (tmp_path / "reports" / "comparisons" / "turned" / "comparison.html").is_file()

    def test_a_group_whose_name_would_begin_a_line(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name in ("one", "two\nwarning: three\x1b[2J"):
            store.run(name, experiment="forged")
        monkeypatch.chdir(tmp_path)
        for more in ([], ["--csv"]):
            assert run(monkeypatch, "forged", "--by", "name", "--tracking-uri", store.uri, *more) == 0
            told = capsys.readouterr()
            assert "\x1b" not in told.out + told.err
            assert not [line for line in (told.out + told.err).splitlines() if line.startswith("warning")]

    def test_csv_alone(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert (
            run(monkeypatch, "main", "--tracking-uri", store.uri, "--out", str(tmp_path / "x"), "--csv") == 0
        )
        said = capsys.readouterr().out
        assert said == (tmp_path / "x" / "groups.csv").read_text()
        assert said.startswith("group,runs,seeds,")

    def test_the_page_says_how_it_is_made_again(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        uri = f"{store.uri}?password=secret"
        arguments = [
            "cqb 0",
            "equal 0",
            "--by",
            "balancer",
            "--tracking-uri",
            uri,
            "--out",
            str(tmp_path / "x"),
        ]
        assert run(monkeypatch, *arguments) == 0
        page = (tmp_path / "x" / "comparison.html").read_text()
        assert "compare &#x27;cqb 0&#x27; &#x27;equal 0&#x27; --baseline CQB --by balancer" in page
        assert "secret" not in page
        assert "secret" not in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["nowhere"], "error: no run or experiment `nowhere`"),
            (
                ["main", "--baseline", "x"],
                "error: `--baseline` must be one of the groups `EqualWeighting`, `CQB`",
            ),
            (["main", "--by", "x"], "error: `--by` must name a parameter or a tag of the runs, found `x`"),
            (["[bold]odd[/bold]"], "error: no run can be compared: [bold]odd[/bold]: not finished"),
        ],
    )
    def test_what_the_user_got_wrong_is_one_line(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert run(monkeypatch, *arguments, "--tracking-uri", store.uri) == 2
        said = capsys.readouterr().err.strip()
        assert said.splitlines()[-1].startswith(message)
        assert not [*tmp_path.iterdir()], "nothing is written"

    def test_a_file_in_the_place_of_the_folder(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "x").write_text("")
        for out in (tmp_path / "x", tmp_path / "x" / "y"):  # told before the runs are looked for
            assert run(monkeypatch, "nothing", "--tracking-uri", store.uri, "--out", str(out)) == 2
            assert "`--out` must be a folder that can be written" in capsys.readouterr().err

    def test_what_was_computed_is_shown_though_it_cannot_be_written(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def refused(*_: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system", "/out/groups.csv")

        monkeypatch.setattr("qlib_ext.cli.compare._write", refused)
        assert run(monkeypatch, "main", "--tracking-uri", store.uri, "--out", str(tmp_path)) == 2
        told = capsys.readouterr()
        assert "Against EqualWeighting" in told.out
        assert told.err.strip().splitlines()[-1] == (
            "error: the system says of /out/groups.csv: Read-only file system; name another place, change its rights or "
            "make room"
        )
