from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qlib_ext.tracking.buffered_client import BufferedMlflowClient
from qlib_ext.tracking.place import local_folder
from tests.report.conftest import MadeUpRun


class Store:
    """An MLflow store with a finished run, and one that left no more than its ranking."""

    def __init__(self, root: Path):
        self.uri = f"sqlite:///{root}/mlflow.db"
        self.client = BufferedMlflowClient(self.uri)
        made = MadeUpRun(root / "made", days=40, epochs=3)
        experiment = self.client.create_experiment("a/b <i>", artifact_location=str(root / "artifacts"))
        self.whole = self._run(experiment, made, "FINISHED", None)
        self.old = self._run(experiment, made, "FAILED", ["ranking"])
        self.empty = self._run(experiment, made, "FAILED", [])

    def _run(self, experiment: str, made: MadeUpRun, status: str, folders: list[str] | None) -> str:
        run = self.client.create_run(experiment).info.run_id
        for path in sorted(made.root.iterdir()):
            if folders is None or path.name in folders:
                self.client.log_artifact(run, str(path))
        for name, value in made.metrics.items():
            self.client.log_metric(run, name, value)
        if status == "FINISHED":
            self.client.log_checksums(run)
        self.client.set_terminated(run, status)
        return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def run(store: Store, command: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of `qlib-ext report` with these arguments, on the store."""
    return functools.partial(command, "report", "--tracking-uri", store.uri)


class TestReport:
    def test_it_makes_the_page_where_the_run_put_its_own(
        self,
        store: Store,
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        status, out, err = run(store.whole[:8])
        assert status == 0
        page = tmp_path / "reports" / "runs" / f"a-b-i--{store.whole[:8]}" / "report.html"
        assert out.splitlines()[-1] == str(page)
        assert "no checksums" not in err
        written = page.read_text(encoding="utf-8")
        assert f"qlib-ext report {store.whole} --tracking-uri" in written
        assert "<h1>a/b &lt;i&gt;</h1>" in written
        assert not (page.parent / "figures").exists()

        status, out, _ = run(store.whole[:8], "--lang", "zh", "--json")
        assert status == 0
        other = Path(json.loads(out)["report"])
        assert other == page.with_name("report.zh.html")
        assert '<html lang="zh-Hans">' in other.read_text(encoding="utf-8")
        assert page.read_text(encoding="utf-8") == written

        status, _, err = run(store.whole[:8], "--lang", "fr")
        assert (status, err) == (2, "error: `lang` must be one of en, zh, found 'fr'\n")

    def test_an_older_run_is_shown_as_far_as_it_goes(
        self,
        store: Store,
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        out = tmp_path / "deep" / "out"
        status, shown, err = run(store.old, "--out", out, "--figures")
        assert status == 0
        assert (
            "Left out, for want of artifacts: Cumulative return, Against portfolios without skill, Drawdown"
            in shown
        )
        assert "The run is FAILED: its report shows what it left so far." in err
        assert "no checksums of what was read, as of runs that version 0.2 made" in err
        page = (out / "report.html").read_text(encoding="utf-8")
        assert "The score ranks the stocks" in page or "Whether the score ranks" in page
        assert (
            "Drawdown: the run has no backtest/series.parquet, written by qlib_ext.records.backtest" in page
        )
        assert {path.name for path in (out / "figures").iterdir()} >= {"precision.png"}

    def test_what_is_wrong_is_one_line(
        self,
        store: Store,
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        (tmp_path / "file").touch()
        for arguments, message in (
            (
                [store.whole, "--out", str(tmp_path / "file")],
                "error: `--out` must be a folder that can be written, found",
            ),
            (  # told before the run is looked for
                ["nothing", "--out", str(tmp_path / "file" / "below")],
                "error: `--out` must be a folder that can be written, found",
            ),
            (["nothing"], "error: no run or experiment `nothing` in"),
            ([store.empty], "error: the standard report needs artifacts that this run does not have"),
        ):
            status, _, err = run(*arguments)
            assert status == 2
            assert err.startswith(message)
            assert err.count("\n") == 1

    def test_a_bit_that_turned_is_one_line_and_no_report(
        self,
        store: Store,
        tmp_path: Path,
        run: Callable[..., tuple[int, str, str]],
    ) -> None:
        folder = local_folder(store.client.get_run(store.whole).info.artifact_uri)
        assert folder is not None
        file = folder / "ranking" / "daily.parquet"
        whole = file.read_bytes()
        file.write_bytes(whole[:200] + bytes([whole[200] ^ 8]) + whole[201:])
        arguments = [store.whole, "--out", str(tmp_path / "out")]
        status, _, told = run(*arguments)
        assert status == 2
        file.write_bytes(whole)
        assert told.startswith("error: the artifact `ranking/daily.parquet` is damaged")
        assert "qlib_ext.records.ranking.RankingRecord makes it" in told
        assert told.count("\n") == 1
        assert not (tmp_path / "out").exists()
