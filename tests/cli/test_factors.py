"""`qlib-ext factors`, on a workflow and on files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.tracking.ledger import entries

Command = Callable[..., tuple[int, str, str]]
WORKFLOW = """
qlib_init:
  provider_uri: "{{ QLIB_DATA }}"
  region: cn
  kernels: 1
task:
  model:
    class: qlib.contrib.model.gbdt.LGBModel
    kwargs: {loss: mse}
  dataset:
    class: qlib_ext.data.dataset.DailyPanelDataset
    kwargs:
      benchmark: SH000300
      handler:
        class: qlib_ext.data.handlers.panel.PanelHandler
        kwargs:
          instruments: csi300
          features:
            class: qlib_ext.features.alpha158.Alpha158
            kwargs: {names: [KMID, ROC5, STD20], windows: [5, 20]}
          fit_start_time: 2014-03-03
          fit_end_time: 2014-06-30
      segments:
        train: [2014-03-03, 2014-06-30]
        valid: [2014-07-01, 2014-08-29]
        test: [2014-09-01, 2014-11-28]
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("factors") / "store"
    SampleMarket(seed=3, stocks=20, start="2014-01-02", end="2014-11-28").write(root)
    return root


@pytest.fixture
def workflow(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLIB_DATA", str(store))
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    return tmp_path / "w.yaml"


class TestWorkflow:
    def test_its_features_are_judged_on_train_and_valid(
        self, command: Command, workflow: Path, tmp_path: Path
    ) -> None:
        status, shown, _ = command("factors", workflow)
        assert status == 0
        assert "w.yaml on store, csi300: " in shown
        assert "from 2014-03-03 to 2014-08-29; label RETURN: Ref($close, -2)" in shown
        assert "no day of `test` was read" in shown
        assert "synthetic market" in shown
        assert "ledger" not in shown
        assert max(map(len, shown.split("3 factors were tried")[0].splitlines()[1:])) <= 80
        folder = tmp_path / "reports/factors/w"
        assert {path.name for path in folder.iterdir()} == {
            "factors.html", "factors.csv", "years.csv", "decay.csv", "correlations.csv"
        }  # fmt: skip
        table = pd.read_csv(folder / "factors.csv", index_col="factor")
        assert [*table.index] == ["KMID", "ROC5", "STD20"]
        assert table["expression"].iloc[1] == "Ref($close, 5)/$close"
        assert pd.read_csv(folder / "decay.csv").shape == (3, 22)

    def test_the_test_segment_where_it_is_asked_for(
        self, command: Command, workflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QLIB_EXT_LEDGER", str(tmp_path / "trials.jsonl"))
        status, shown, _ = command(
            "factors", workflow, "--segment", "test", "--label", "NEXT_RETURN", "--out", tmp_path / "out"
        )
        assert status == 0
        assert shown.splitlines()[1].startswith("TEST: the segment `test` was read: choose nothing")
        assert "from 2014-09-01 to 2014-11-28; label NEXT_RETURN" in shown
        assert "note: line 1 of the ledger of trials trials.jsonl, of 1 look at these test days" in shown
        (look,) = entries(tmp_path / "trials.jsonl")
        assert (look.trial.first, look.trial.last) == ("2014-09-01", "2014-11-28")
        assert look.trial.name == "factors of w.yaml"
        page = (tmp_path / "out/factors.html").read_text()
        assert "The test segment was read" in page
        assert "Line 1 of the ledger" in page

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (
                ("--segment", "tset"),
                "`--segment` must be one of test, train, valid, found 'tset' (did you mean test?)",
            ),
            (("--store", "x"), "`--store` belongs to a FILE: a workflow says its own"),
            (
                ("--label", "Reff($close, -1)"),
                "`--label` must be one of RETURN, NEXT_RETURN, or an expression",
            ),
        ],
    )
    def test_wrong(self, command: Command, workflow: Path, more: tuple[str, ...], message: str) -> None:
        status, _, told = command("factors", workflow, *more)
        assert status == 2
        assert message in told
        assert told.count("\n") == 1


class TestFile:
    def test_expressions_as_csv(self, command: Command, store: Path, tmp_path: Path) -> None:
        (tmp_path / "f.txt").write_text("ROC5: Ref($close, 5)/$close\nAHEAD: Ref($close, -1)/$close\n")
        given = ("factors", "f.txt", "--store", store, "--universe", "csi300", "--end", "2014-08-29")
        status, shown, _ = command(*given, "--csv")
        assert status == 0
        rows = shown.splitlines()
        assert rows[0].startswith("factor,expression,look_ahead,place,")
        assert len(rows) == 3
        status, shown, _ = command(*given, "--top", 1, "--label", "Ref($close, -6)/Ref($close, -1)-1")
        assert status == 0
        assert "LOOK-AHEAD AHEAD: the feature `AHEAD` reads bars of up to 1 days later" in shown
        assert "label Ref($close, -6)/Ref($close, -1)-1" in shown

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ((), "a FILE needs `--store DIR` and `--universe NAME`"),
            (("--segment", "train"), "`--segment` belongs to a WORKFLOW"),
            (
                ("--store", "nowhere", "--universe", "csi300"),
                "expected a Qlib data directory, found no directory",
            ),
            (("--store", "STORE", "--universe", "csi3"), "no universe `csi3`"),
            (
                ("--store", "STORE", "--universe", "csi300", "--start", "2030-01-01"),
                "at least 2 days with members",
            ),
            (("--store", "STORE", "--universe", "csi300", "--start", "soon"), "`start_time` must be a day"),
        ],
    )
    def test_wrong(
        self, command: Command, store: Path, tmp_path: Path, more: tuple[str, ...], message: str
    ) -> None:
        (tmp_path / "f.yaml").write_text("A: $close\n")
        status, _, told = command("factors", "f.yaml", *(store if x == "STORE" else x for x in more))
        assert status == 2
        assert message in told
        assert told.count("\n") == 1

    def test_ready_values_without_a_row_of_the_universe(
        self, command: Command, store: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "f.csv").write_text("datetime,instrument,a\n2014-05-05,SH999999,1\n")
        status, _, told = command("factors", "f.csv", "--store", store, "--universe", "csi300")
        assert status == 2
        assert "`f.csv` must have a row of a member of `csi300` on one of the days" in told
