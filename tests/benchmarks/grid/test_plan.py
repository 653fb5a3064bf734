from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.grid.plan import Budget, Cell, Grid, Job, Plan, merged
from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.model.multi_task import MultiTaskModel

ROOT = Path(__file__).parents[3]
GRID = ROOT / "benchmarks" / "paper" / "grid.yaml"
CELL = Cell("CSI300", "LSTM", "MiM-StocR", 0)


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid(GRID, ROOT)


def job(
    grid: Grid, cell: Cell = CELL, budget: Budget | None = None, fingerprint: str = "f", **given: Any
) -> Job:
    places = {"store": Path("/store"), "tracking_uri": "sqlite:///x.db", **given}
    return grid.job(cell, budget or Budget(), fingerprint=fingerprint, **places)


class TestMerged:
    def test_mappings_are_merged_key_by_key_and_the_base_stays(self) -> None:
        base = {"a": {"b": 1, "c": [1]}, "d": 2}
        assert merged(base, {"a": {"b": 3}}) == {"a": {"b": 3, "c": [1]}, "d": 2}
        assert base == {"a": {"b": 1, "c": [1]}, "d": 2}

    def test_null_removes_a_key(self) -> None:
        assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}) == {"a": {"c": 2}}

    def test_another_class_takes_nothing_of_the_old_arguments(self) -> None:
        base = {"balancer": {"class": "A", "kwargs": {"beta": 0.5}}}
        assert merged(base, {"balancer": {"class": "B"}}) == {"balancer": {"class": "B"}}
        same = merged(base, {"balancer": {"class": "A", "kwargs": {"decay": 0.1}}})
        assert same == {"balancer": {"class": "A", "kwargs": {"beta": 0.5, "decay": 0.1}}}


class TestBudget:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"epochs": 0}, "`epochs` must be at least 1, found 0"),
            ({"patience": 0}, "`patience` must be at least 1"),
            ({"hidden_size": 1.5}, "`hidden_size` must be an integer"),
            ({"precision": "float16"}, "`precision` must be one of bfloat16, float32"),
        ],
    )
    def test_what_it_refuses(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Budget(**given)


class TestCells:
    def test_seeds_vary_slowest_so_that_a_grid_cut_short_has_every_method_once(self, grid: Grid) -> None:
        cells = grid.cells(["SSE50"], ["LSTM"], ["STL", "EW"], [0, 1])
        assert [(cell.seed, cell.method) for cell in cells] == [(0, "STL"), (0, "EW"), (1, "STL"), (1, "EW")]

    def test_a_cell_that_two_tables_ask_for_stands_once(self, grid: Grid) -> None:
        methods = grid.expand(["table1", "table4", "MiM-StocR"])
        assert methods.count("MiM-StocR") == 1
        assert set(methods) == {*grid.tables["table1"], *grid.tables["table4"]}

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"universes": ["CSI30"]}, "`universes` must be one of .*did you mean CSI300"),
            ({"backbones": ["GAT"]}, "`backbones` must be one of .*did you mean GATs"),
            ({"methods": ["MIM"]}, "`methods` must be one of"),
            ({"seeds": [-1]}, "`seeds` must be at least 0"),
        ],
    )
    def test_unknown_names_are_refused_with_the_known_ones(
        self, grid: Grid, given: dict[str, Any], message: str
    ) -> None:
        known: dict[str, Any] = {
            "universes": ["CSI300"],
            "backbones": ["LSTM"],
            "methods": ["EW"],
            "seeds": [0],
        }
        with pytest.raises(UserError, match=message):
            grid.cells(**{**known, **given})


class TestFile:
    def test_a_part_that_is_missing_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "grid.yaml"
        path.write_text("universes: {}\nbackbones: {}\nmethods: {}\n")
        with pytest.raises(UserError, match="must have a mapping `tables`, found None"):
            Grid(path, ROOT)

    def test_a_table_of_an_unknown_method_is_refused(self, tmp_path: Path) -> None:
        content = yaml.safe_load(GRID.read_text())
        content["tables"]["table1"].append("MTL")
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=r"a method of tables\.table1"):
            Grid(path, ROOT)


class TestJob:
    @pytest.mark.parametrize("method", Grid(GRID, ROOT).methods)
    @pytest.mark.parametrize("backbone", Grid(GRID, ROOT).backbones)
    def test_every_method_on_every_backbone_builds_its_model(
        self, grid: Grid, backbone: str, method: str
    ) -> None:
        made = job(grid, Cell("CSI300", backbone, method, 7), Budget(hidden_size=8))
        model = build(made.config["task"]["model"], MultiTaskModel, name="model")
        assert model.seed == 7
        assert model.backbone["kwargs"]["hidden_size"] == 8
        assert model.backbone["class"].endswith(backbone)

    def test_the_main_method_is_the_workflow_as_it_stands(self, grid: Grid) -> None:
        task = job(grid).config["task"]
        kwargs = task["model"]["kwargs"]
        assert kwargs["balancer"]["kwargs"] == {"beta": 0.5, "decay": 1e-3, "window": 6}
        assert kwargs["trainer"]["n_epochs"] == 100
        assert kwargs["resume"] == 1

    def test_the_budget_reaches_the_trainer(self, grid: Grid) -> None:
        trainer = job(grid, budget=Budget(3, 2, 16, "bfloat16")).config["task"]["model"]["kwargs"]["trainer"]
        assert (trainer["n_epochs"], trainer["patience"], trainer["precision"]) == (3, 2, "bfloat16")

    def test_single_task_learning_leaves_out_what_reads_the_momentum(self, grid: Grid) -> None:
        task = job(grid, Cell("CSI300", "LSTM", "STL", 0)).config["task"]
        assert [*task["model"]["kwargs"]["tasks"]] == ["score"]
        classes = [record["class"] for record in task["record"]]
        assert "qlib_ext.records.momentum.MomentumRecord" not in classes
        assert classes[-1] == "qlib_ext.records.report.ReportRecord"

    def test_rise_or_fall_changes_the_label_and_nothing_else(self, grid: Grid) -> None:
        momentum, rise = (
            job(grid, Cell("CSI300", "HIST", method, 0)).config["task"]["model"]["kwargs"]
            for method in ("MiM-StocR", "rise-or-fall")
        )
        assert rise["tasks"]["rise"] == momentum["tasks"]["momentum"] | {"label": "RISE"}
        momentum["tasks"].pop("momentum")
        rise["tasks"].pop("rise")
        assert rise == momentum

    @pytest.mark.parametrize(("universe", "k"), [("SSE50", 10), ("CSI100", 20), ("CSI300", 50)])
    def test_a_fixed_k_cuts_the_list_of_its_universe(self, grid: Grid, universe: str, k: int) -> None:
        tasks = job(grid, Cell(universe, "LSTM", "fixed k", 0)).config["task"]["model"]["kwargs"]["tasks"]
        assert tasks["momentum"]["loss"]["kwargs"]["losses"][1]["kwargs"] == {"k": k}

    def test_a_value_that_the_universe_has_not_is_named(self, grid: Grid, tmp_path: Path) -> None:
        content = yaml.safe_load(GRID.read_text())
        content["universes"]["SSE50"]["values"] = {"bottom": 1}
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=r"`\$top` must be a value of the universe, which has bottom"):
            job(Grid(tmp_path / "grid.yaml", ROOT), Cell("SSE50", "LSTM", "fixed k", 0))

    def test_the_authors_rules_are_those_of_their_universe(self, grid: Grid) -> None:
        assert [*job(grid).backtests] == ["authors"]
        assert not job(grid, Cell("SSE50", "LSTM", "STL", 0)).backtests
        strategy = job(grid).backtests["authors"]["strategy"]["kwargs"]
        assert (strategy["topk"], strategy["n_drop"], strategy["only_tradable"]) == (50, 5, True)

    def test_epochs_are_kept_where_asked_and_are_no_other_run(self, grid: Grid) -> None:
        kept = job(grid, keep_epochs=True)
        assert kept.config["task"]["model"]["kwargs"]["keep_epochs"]
        assert kept.name == job(grid).name


class TestName:
    """A run's name says what decides its result, and nothing else."""

    def test_equal_jobs_have_equal_names_wherever_they_run(self, grid: Grid) -> None:
        elsewhere = {
            "store": Path("/elsewhere"),
            "tracking_uri": "http://localhost:1",
            "panel_cache": Path("/c"),
        }
        assert job(grid).name == job(grid, **elsewhere).name
        assert job(grid, **elsewhere).config["task"]["dataset"]["kwargs"]["cache"] == "/c"

    @pytest.mark.parametrize(
        "other",
        [
            {"cell": Cell("CSI300", "LSTM", "MiM-StocR", 1)},
            {"cell": Cell("CSI300", "LSTM", "beta by product", 0)},
            {"budget": Budget(epochs=99)},
            {"budget": Budget(precision="bfloat16")},
            {"fingerprint": "g"},
        ],
    )
    def test_what_decides_the_result_changes_it(self, grid: Grid, other: dict[str, Any]) -> None:
        assert job(grid).name.split()[-1] != job(grid, **other).name.split()[-1]

    def test_another_section_of_the_report_does_not(self, grid: Grid, tmp_path: Path) -> None:
        text = (ROOT / "workflows" / "mimstocr_csi300.yaml").read_text()
        line = "    - class: qlib_ext.records.report.ReportRecord\n"
        also = "      kwargs: {also: [{class: mine.Weather}]}\n"
        assert line in text
        (tmp_path / "workflows").mkdir()
        (tmp_path / "workflows" / "mimstocr_csi300.yaml").write_text(text.replace(line, line + also))
        assert job(Grid(GRID, tmp_path)).name == job(grid).name

    def test_another_account_of_the_backtest_does(self, grid: Grid, tmp_path: Path) -> None:
        text = (ROOT / "workflows" / "mimstocr_csi300.yaml").read_text()
        assert "account: 100000000" in text
        (tmp_path / "workflows").mkdir()
        (tmp_path / "workflows" / "mimstocr_csi300.yaml").write_text(
            text.replace("account: 100000000", "account: 200000000")
        )
        assert job(Grid(GRID, tmp_path)).name != job(grid).name

    def test_the_cells_are_traded_by_the_exchange_rules_of_the_workflow(self, grid: Grid) -> None:
        (record,) = [
            record
            for record in job(grid).config["task"]["record"]
            if record["class"] == "qlib_ext.records.backtest.BacktestRecord"
        ]
        assert record["kwargs"]["backtest"]["exchange_kwargs"] == {"deal_price": "close", "rules": "cn"}


class TestPlan:
    def test_it_grows_and_holds_each_run_once(self, grid: Grid, tmp_path: Path) -> None:
        path = tmp_path / "work" / "plan.json"
        first = job(grid)
        second = job(grid, Cell("CSI300", "LSTM", "EW", 0), Budget(5, 5, 8, "bfloat16"))
        Plan(path).add([first], store="/s", fingerprint="f")
        Plan(path).add([first, second], store="/s", fingerprint="f")
        rows = Plan(path).rows
        assert [row["name"] for row in rows] == [first.name, second.name]
        assert rows[1]["method"] == "EW"
        assert rows[1]["epochs"] == 5
        assert not [*path.parent.glob("*.new")]


class TestRecordsOfEveryRun:
    def test_a_record_is_left_out_of_all_of_them(self, grid: Grid) -> None:
        sweep = "qlib_ext.records.sweeps.SweepRecord"
        assert sweep in (ROOT / "workflows" / "mimstocr_csi300.yaml").read_text()
        for method in ("MiM-StocR", "STL"):
            records = job(grid, Cell("CSI300", "LSTM", method, 0)).config["task"]["record"]
            assert sweep not in [record["class"] for record in records]

    def test_what_only_shows_leaves_a_finished_run_finished(self, grid: Grid, tmp_path: Path) -> None:
        changed = yaml.safe_load(GRID.read_text())
        changed["records"]["qlib_ext.records.trades.TradesRecord"] = None
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(changed))
        assert job(Grid(tmp_path / "grid.yaml", ROOT)).name == job(grid).name
        changed["records"]["qlib_ext.records.backtest.BacktestRecord"] = {"days_per_year": 252}
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(changed))
        assert job(Grid(tmp_path / "grid.yaml", ROOT)).name != job(grid).name
