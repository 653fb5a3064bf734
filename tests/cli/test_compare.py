from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

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


@pytest.fixture
def run(store: Store, command: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of `qlib-ext compare` with these arguments, on the store."""
    return functools.partial(command, "compare", "--tracking-uri", store.uri)


class TestCompare:
    def test_tables_page_and_files(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        status, text, _ = run("main")
        assert status == 0
        tables, _, _ = text.partition(
            "\n? "
        )  # the first claim: two runs of a group are too few for a sure one
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
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        status, out, _ = run("drawn")
        assert status == 0
        assert out.startswith("Synthetic market: a program drew it")

    def test_a_damaged_run_is_left_out_and_an_error(
        self,
        store: Store,
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
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
        status, out, err = run("turned")
        assert status == 2
        shown = r"dam\nwarning: aged\u001b[2J\u202e"
        assert f"error: compared without 1 run: {shown}: its artifacts cannot be read: the artifact" in err
        assert "old (" in err.partition("no checksums of what was read")[0]
        assert f"left out {shown}" in " ".join(out.split())
        assert not set("\x1b\u202e") & set(out + err)
        assert (tmp_path / "reports" / "comparisons" / "turned" / "comparison.html").is_file()

    def test_a_group_whose_name_would_begin_a_line(
        self,
        store: Store,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        for name in ("one", "two\nwarning: three\x1b[2J"):
            store.run(name, experiment="forged")
        for more in ([], ["--csv"]):
            status, out, err = run("forged", "--by", "name", *more)
            assert status == 0
            assert "\x1b" not in out + err
            assert not [line for line in (out + err).splitlines() if line.startswith("warning")]

    def test_csv_alone(
        self,
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        status, said, _ = run("main", "--out", tmp_path / "x", "--csv")
        assert status == 0
        assert said == (tmp_path / "x" / "groups.csv").read_text()
        assert said.startswith("group,runs,seeds,")

    def test_the_page_says_how_it_is_made_again(
        self,
        store: Store,
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
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
        status, out, _ = run(*arguments)
        assert status == 0
        page = (tmp_path / "x" / "comparison.html").read_text()
        assert "compare &#x27;cqb 0&#x27; &#x27;equal 0&#x27; --baseline CQB --by balancer" in page
        assert "secret" not in page
        assert "secret" not in out

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
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
        arguments: list[str],
        message: str,
    ) -> None:
        status, _, err = run(*arguments)
        assert status == 2
        assert err.strip().splitlines()[-1].startswith(message)
        assert not [*tmp_path.iterdir()], "nothing is written"

    def test_a_file_in_the_place_of_the_folder(
        self,
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        (tmp_path / "x").write_text("")
        for out in (tmp_path / "x", tmp_path / "x" / "y"):  # told before the runs are looked for
            status, _, err = run("nothing", "--out", out)
            assert status == 2
            assert "`--out` must be a folder that can be written" in err

    def test_what_was_computed_is_shown_though_it_cannot_be_written(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        def refused(*_: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system", "/out/groups.csv")

        monkeypatch.setattr("qlib_ext.report.comparison.files.write", refused)
        status, out, err = run("main", "--out", tmp_path)
        assert status == 2
        assert "Against EqualWeighting" in out
        assert err.strip().splitlines()[-1] == (
            "error: the system says of /out/groups.csv: Read-only file system; name another place, change its rights or "
            "make room"
        )
