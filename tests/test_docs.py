"""The pages say what is so: their examples run, their links lead somewhere, their tables are complete."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import numpy as np
import pandas as pd
import pytest
import qlib
import torch
import yaml
from qlib.contrib.strategy.signal_strategy import BaseSignalStrategy
from qlib.data.dataset.processor import Processor

from qlib_ext.config.build import build, classes_in, locate
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.labels.label import Label
from qlib_ext.data.labels.label_planes import works_per_day
from qlib_ext.data.panel import DailyPanel
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.expressions import Expressions
from qlib_ext.features.side_data.source import Source
from qlib_ext.market.fetch.source import Source as DataSource
from qlib_ext.market.store import write_store
from qlib_ext.model.augment import augmented
from qlib_ext.model.averaging.base import Averaging
from qlib_ext.model.backbones.base import Backbone
from qlib_ext.model.balancers.base import Aggregator, Balancer
from qlib_ext.model.combiners.base import Combiner
from qlib_ext.model.losses.base import Loss
from qlib_ext.model.options import TrainerOptions
from qlib_ext.portfolio.allocation import Allocation
from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.online.base import MixingRule
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.report.document import Document
from qlib_ext.report.sections.base import Section
from qlib_ext.tracking.artifacts import RunArtifacts
from qlib_ext.workflow.experiment import ExperimentManager
from tests.features.arrays import market_of
from tests.portfolio.markets import day_of, history_of
from tests.portfolio.problems import problem_of, risk_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARTS = (ROOT / "docs" / "parts.md").read_text(encoding="utf-8")
OF_WORKFLOWS = (ROOT / "docs" / "workflows.md").read_text(encoding="utf-8")
HOW_TO_ADD = (ROOT / "docs" / "how-to-add.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.yaml"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def define(path: str, code: str, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Make `code` the module that stands at `path` of the package."""
    name = path.removesuffix(".py").replace("/", ".")
    module = types.ModuleType(name)
    exec(compile(code, path, "exec"), module.__dict__)  # noqa: S102 - our own page
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == "builtins":
            value.__module__ = name
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """The YAML of docs/how-to-add.md by its key, with the Python files above it in place."""
    for code in blocks(HOW_TO_ADD, "python"):
        first = code.splitlines()[0]
        assert re.fullmatch(r"# qlib_ext/\S+\.py", first), f"an example says its file first, found {first!r}"
        path = first.removeprefix("# ")
        assert (ROOT / path).parent.is_dir(), f"{path} belongs to no folder of the package"
        define(path, code, monkeypatch)
    config: dict[str, Any] = {}
    for text in blocks(HOW_TO_ADD, "yaml"):
        config.update(yaml.safe_load(text))
    return config


class TestParts:
    """The table of parts names what a workflow can name, and nothing else."""

    KINDS: Mapping[str, type] = {
        "qlib_ext.features": FeatureSet,
        "qlib_ext.features.side_data": Source,
        "qlib_ext.data.handlers": PanelHandler,
        "qlib_ext.data.labels": Label,
        "qlib_ext.data.processors": Processor,
        "qlib_ext.model.backbones": Backbone,
        "qlib_ext.model.heads": torch.nn.Module,
        "qlib_ext.model.losses": Loss,
        "qlib_ext.model.balancers": Balancer,
        "qlib_ext.model.averaging": Averaging,
        "qlib_ext.model.combiners": Combiner,
        "qlib_ext.portfolio.expected_returns": ExpectedReturns,
        "qlib_ext.portfolio.risk_models": RiskModel,
        "qlib_ext.portfolio.constraints": Constraint,
        "qlib_ext.portfolio.optimisers": Optimiser,
        "qlib_ext.portfolio.calendars": Calendar,
        "qlib_ext.portfolio.online": MixingRule,
        "qlib_ext.market.fetch.sources": DataSource,
        "qlib_ext.strategy": BaseSignalStrategy,
    }
    WHOLE = (
        "features",
        "model.backbones",
        "model.heads",
        "model.losses",
        "model.balancers",
        "model.averaging",
        "model.combiners",
        "portfolio.expected_returns",
        "portfolio.risk_models",
        "portfolio.constraints",
        "portfolio.optimisers",
        "portfolio.calendars",
        "portfolio.online",
        "market.fetch.sources",
        "strategy",
    )

    @pytest.fixture(scope="class")
    def listed(self) -> dict[str, set[type]]:
        found: dict[str, set[type]] = {}
        for folder, cell in re.findall(
            r"^\| [^|]+ \| `(qlib_ext[\w.]+)` \| (.+) \|$", PARTS, flags=re.MULTILINE
        ):
            parts = re.findall(r"`(\w+\.\w+)`", cell)
            found.setdefault(folder, set()).update(locate(f"{folder}.{part}", name="part") for part in parts)
        return found

    def test_each_can_be_named(self, listed: dict[str, set[type]]) -> None:
        assert set(listed) == set(self.KINDS)
        for folder, parts in listed.items():
            for part in parts:
                assert issubclass(part, self.KINDS[folder])
                assert not inspect.isabstract(part)

    @pytest.mark.parametrize("family", WHOLE)
    def test_none_is_left_out(self, family: str, listed: dict[str, set[type]]) -> None:
        folder = f"qlib_ext.{family}"
        there = {
            kind
            for kind in classes_in(importlib.import_module(folder), self.KINDS[folder])
            if not inspect.isabstract(kind) and not kind.__module__.endswith(".base")
        }
        assert there == listed[folder]


PARTS_OF_A_PORTFOLIO: Mapping[str, type] = {
    "optimiser": Optimiser,
    "calendar": Calendar,
    "expected_returns": ExpectedReturns,
    "risk_model": RiskModel,
    "portfolio": Allocation,
}
EXAMPLES_OF_PORTFOLIOS = [
    (key, config)
    for text in blocks((ROOT / "docs" / "portfolio.md").read_text(encoding="utf-8"), "yaml")
    for key, config in yaml.safe_load(text).items()
    if key in PARTS_OF_A_PORTFOLIO
]


class TestPortfolios:
    def test_the_page_shows_each_part(self) -> None:
        assert {key for key, _ in EXAMPLES_OF_PORTFOLIOS} == {*PARTS_OF_A_PORTFOLIO}

    @pytest.mark.parametrize(("key", "config"), EXAMPLES_OF_PORTFOLIOS)
    def test_what_the_page_shows_is_built(self, key: str, config: Mapping[str, Any]) -> None:
        build(config, PARTS_OF_A_PORTFOLIO[key], name=key)


class TestExamples:
    def test_there_is_one_of_each(self, examples: Mapping[str, Any]) -> None:
        assert set(examples) == {
            "features",
            "labels",
            "own_label",
            "learn_processors",
            "infer_processors",
            "handler",
            "loss",
            "backbone",
            "balancer",
            "combine",
            "augmentations",
            "averaging",
            "trainer",
            "strategy",
            "expected_returns",
            "risk_model",
            "optimiser",
            "calendar",
            "calm",
            "also",
        }

    def test_features(self, examples: Mapping[str, Any]) -> None:
        features = build(examples["features"], FeatureSet, name="features")
        close = np.exp(np.random.default_rng(0).normal(3, 0.1, (1, 40, 6))).astype(np.float32)
        market = market_of(close, features.fields)
        features.fit(market, np.arange(40)[:, None] < np.full(6, 30))
        found = features.gather(torch.from_numpy(features.pad(market)), 35, torch.tensor([4, 1]))
        assert found.shape == (2, 1, 2)
        change = np.log(close[0, 20:30] / close[0, :10])  # over 20 days, of the days to fit on
        expected = (np.log(close[0, 35, [4, 1]] / close[0, 15, [4, 1]]) - change.mean()) / change.std()
        np.testing.assert_allclose(found[:, 0, 1], expected, rtol=1e-4)

    def test_features_of_ones_own_data(self) -> None:
        """They are expressions, over tables that the page on side data brings in."""
        pages = [
            (ROOT / "docs" / name).read_text(encoding="utf-8")
            for name in ("features.md", "data/side-data.md")
        ]
        (text,) = [text for text in blocks(pages[0], "yaml") if "side." in text]
        features = build(yaml.safe_load(text)["features"], Expressions, name="features")
        for name, field in features.program.side_fields:
            assert re.search(rf"side-data DIR {name} .*\b{field}\b", pages[1]), f"side.{name}.{field}"

    def test_expected_returns(self, examples: Mapping[str, Any]) -> None:
        expected = build(examples["expected_returns"], ExpectedReturns, name="expected_returns")
        known = day_of(history_of())
        found = expected.estimate(known, risk_of(30))
        moved = np.prod(1 + known.returns[-10:], axis=0) - 1
        np.testing.assert_allclose(found, -0.01 * (moved - moved.mean()))

    def test_risk_model(self, examples: Mapping[str, Any]) -> None:
        model = build(examples["risk_model"], RiskModel, name="risk_model")
        risk, told = model.estimate(day_of(history_of()))
        covariance = risk.take(risk.known).covariance()
        volatility = np.sqrt(np.diag(covariance))
        correlation = covariance / np.outer(volatility, volatility)
        np.testing.assert_allclose(correlation[~np.eye(len(volatility), dtype=bool)], 0.2)
        assert len(volatility) == 29
        assert len(told) == 2

    def test_optimiser(self, examples: Mapping[str, Any]) -> None:
        asked = problem_of(6, most=0.25)
        found = build(examples["optimiser"], Optimiser, name="optimiser").solve(asked)
        free = found < 0.25 - 1e-9
        ratio = (found * asked.risk.variances())[free]
        np.testing.assert_allclose(ratio, ratio[0])
        assert asked.broken(found) == []

    def test_combiner(self, examples: Mapping[str, Any]) -> None:
        combiner = build(examples["combine"], Combiner, name="combine")
        found = combiner.combine([[[1.0, 2.0, 3.0]], [[5.0, 9.0, 1.0]]])
        np.testing.assert_allclose(found, [[-0.4837, 0.4837, 0.0]], atol=1e-4)

    def test_calendar(self, examples: Mapping[str, Any]) -> None:
        calendar = build(examples["calendar"], Calendar, name="calendar")
        days = pd.bdate_range("2024-01-01", "2024-12-31")
        nothing = np.zeros(1)
        since = SinceRebalance(nothing, nothing, nothing, nothing)
        last, found = None, []
        for k, day in enumerate(days):
            if calendar.due(day, last, days[: k + 1], since):
                last = day
                found.append(f"{day:%m-%d}")
        assert found == ["01-01", "05-01", "11-01"]

    def test_label(self, examples: Mapping[str, Any], tmp_path: Path) -> None:
        qlib.init(provider_uri=str(tmp_path), kernels=1)  # who reads expressions; no store is opened
        given = {name: examples[name] for name in ("labels", "learn_processors")}
        handler = PanelHandler("csi300", **given, init_data=False)
        assert handler.horizon_days == 6
        assert handler.label_names() == (("WEEK",), ("WEEK",))

    def test_label_of_ones_own(self, examples: Mapping[str, Any]) -> None:
        label = build(examples["own_label"], Label, name="own_label")
        assert (label.horizon_days, label.span_days) == (11, 10)
        close = np.exp(np.random.default_rng(0).normal(3, 0.1, (1, 40, 2))).astype(np.float32)
        found = label.values(market_of(close, ["close"]), None).of(slice(3, 40))
        np.testing.assert_allclose(found[0], close[0, 4:15].min(axis=0) / close[0, 4] - 1, rtol=1e-6)
        np.testing.assert_array_equal(np.isnan(found[:, 0]).nonzero()[0], np.arange(26, 37))

    def test_processor(self, examples: Mapping[str, Any], tmp_path: Path) -> None:
        qlib.init(provider_uri=str(tmp_path), kernels=1)
        given = {name: examples[name] for name in ("labels", "infer_processors")}
        handler = PanelHandler("csi300", **given, init_data=False)
        assert handler.label_names() == (("WEEK", "LARGE"), ("WEEK", "LARGE"))
        (processor,) = handler.infer_processors
        assert works_per_day(processor)
        table = processor(pd.DataFrame({("label", "WEEK"): [0.2, -0.1, 0.05, np.nan]}))
        np.testing.assert_array_equal(table["label", "LARGE"], [1, 1, 0, np.nan])

    def test_handler(self, examples: Mapping[str, Any], tmp_path: Path) -> None:
        qlib.init(provider_uri=str(tmp_path), kernels=1)
        kwargs = examples["handler"]["kwargs"] | {"init_data": False}
        handler = build(examples["handler"] | {"kwargs": kwargs}, PanelHandler, name="handler")
        assert handler.horizon_days == 11
        assert handler.label_names() == (("RETURN",), ("RETURN",))

    def test_loss(self, examples: Mapping[str, Any]) -> None:
        loss = build(examples["loss"], Loss, name="loss")
        pred = torch.tensor([0.1, 2.0], requires_grad=True)
        value = loss(pred, torch.zeros(2))
        assert value.item() == pytest.approx((0.5 * 0.1**2 + 0.5 * (2.0 - 0.25)) / 2)
        value.backward()
        assert pred.grad is not None
        assert pred.grad.tolist() == pytest.approx([0.05, 0.25])

    def test_the_loss_of_the_readme_is_ten_lines_and_works(self, monkeypatch: pytest.MonkeyPatch) -> None:
        *_, code = blocks(README, "python")  # the first is of a notebook
        assert len([line for line in code.splitlines() if line.strip()]) <= 10
        define("qlib_ext/model/losses/huber.py", code, monkeypatch)
        (text,) = blocks(README, "yaml")
        loss = build(yaml.safe_load(text)["tasks"]["score"]["loss"], Loss, name="loss")
        assert loss(torch.tensor([0.1, 2.0]), torch.zeros(2)).item() == pytest.approx((0.005 + 1.5) / 2)

    def test_backbone(self, examples: Mapping[str, Any]) -> None:
        backbone = build(examples["backbone"], Backbone, name="backbone", num_features=6, lookback_days=60)
        panel = DailyPanel(
            date=pd.Timestamp("2020-01-02"),
            features=torch.randn(5, 60, 6),
            instruments=torch.arange(5),
            market_value=None,
            labels={},
            raw_labels={},
        )
        assert backbone(panel).shape == (5, backbone.out_features) == (5, 32)

    def test_balancer(self, examples: Mapping[str, Any]) -> None:
        balancer = build(examples["balancer"], Aggregator, name="balancer")
        jacobian = torch.tensor([[3.0, 4.0], [0.0, 100.0], [0.0, 0.0]])
        assert balancer.aggregate(jacobian).tolist() == pytest.approx([0.6, 1.8])

    def test_augmentation(self, examples: Mapping[str, Any]) -> None:
        options = TrainerOptions.of({"augmentations": examples["augmentations"]})
        panel = DailyPanel(
            pd.Timestamp("2020-01-02"), torch.ones(200, 20, 3), torch.arange(200), None, {}, {}
        )
        found = augmented(panel, options.augmentations, seed=0, epoch=0, position=0).features
        assert ((found == 0).all(dim=2) == (found == 0).any(dim=2)).all(), "a day is missing as a whole"
        assert (found == 0).float().mean().item() == pytest.approx(0.5 * 0.2, abs=0.03)

    def test_averaging(self, examples: Mapping[str, Any]) -> None:
        options = TrainerOptions.of({"averaging": examples["averaging"]})
        assert options.averaging is not None
        network = torch.nn.Linear(1, 1, bias=False)
        average = options.averaging.begun(network)
        for weight in (1.0, 2.0, 6.0):
            torch.nn.init.constant_(network.weight, weight)
            average.end_step(network)
        judged = average.judged(network)
        assert judged is not None
        assert [float(weight) for weight in judged.parameters()] == pytest.approx([3.0])

    def test_schedule(self, examples: Mapping[str, Any]) -> None:
        phases = TrainerOptions.of(examples["trainer"]).plan(["score", "direction"])
        assert [phase.tasks for phase in phases] == [("direction",), ("score",), ("score", "direction")]
        assert [phase.epochs for phase in phases] == [10, 10, 80]
        assert [phase.learning_rate for phase in phases] == [2e-4, 1e-3, 2e-4]
        assert {(phase.patience, phase.selection) for phase in phases} == {(10, "loss")}

    def test_strategy(self, examples: Mapping[str, Any]) -> None:
        scores = pd.Series([0.3, 0.1, None, 0.2], index=["SH600000", "SH600004", "SH600006", "SH600007"])
        signal = pd.concat({pd.Timestamp("2020-01-02"): scores}, names=["datetime", "instrument"])
        strategy_class = locate(examples["strategy"]["class"], name="strategy")
        strategy = strategy_class(signal=signal, **examples["strategy"]["kwargs"])
        assert strategy.generate_target_weight_position(scores, None, None, None) == {
            "SH600000": 0.5,
            "SH600007": 0.5,
        }

    def test_strategy_with_past_prices(self, examples: Mapping[str, Any], tmp_path: Path) -> None:
        calendar = pd.bdate_range("2020-01-01", periods=12)
        codes = ["SH600000", "SH600004", "SH600006"]
        close = np.exp(np.random.default_rng(0).normal(3, 0.1, (12, 3))).astype(np.float32)
        members = pd.DataFrame({"instrument": codes, "start": calendar[0], "end": calendar[-1]})
        write_store(tmp_path / "store", calendar, codes, {"close": close}, {"few": members})
        qlib.init(provider_uri=str(tmp_path / "store"), kernels=1)
        scores = pd.Series([0.3, 0.1, 0.2], index=codes)
        signal = pd.concat({calendar[7]: scores}, names=["datetime", "instrument"])
        strategy_class = locate(examples["calm"]["class"], name="strategy")
        strategy = strategy_class(signal=signal, **examples["calm"]["kwargs"])
        # Trading on day 8 by what was known on day 7.
        trading = types.SimpleNamespace(
            get_trade_step=lambda: 8, get_step_time=lambda step, shift: (calendar[step - shift],) * 2
        )
        strategy.level_infra = {"trade_calendar": trading}
        found = strategy.generate_target_weight_position(scores, None, calendar[8], calendar[8])
        returns = close[4:8] / close[3:7] - 1
        calm = 1 / returns[:, [0, 2]].std(axis=0, ddof=1)
        assert found == pytest.approx(
            dict(zip(["SH600000", "SH600006"], calm / calm.sum(), strict=True)), rel=1e-4
        )

    def test_section(self, examples: Mapping[str, Any], tmp_path: Path) -> None:
        (tmp_path / "backtest").mkdir()
        pd.DataFrame({"turnover": [0.1, 0.3]}).to_parquet(tmp_path / "backtest" / "daily.parquet")
        (config,) = examples["also"]
        page = Document([build(config, Section, name="also[0]")]).render(RunArtifacts(tmp_path))
        assert "20.00% of the account is traded a day, 30.00% on the busiest one." in page


class TestPages:
    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_links_lead_somewhere(self, page: Path) -> None:
        targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        own = [target.partition("#")[0] for target in targets if "://" not in target]
        broken = [target for target in own if target and not (page.parent / target).exists()]
        assert not broken

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
    def test_files_named_are_there(self, page: Path) -> None:
        text = re.sub(
            r"^```python.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
        )
        named = re.findall(r"(?:workflows|docker|docs|tests|benchmarks)/[\w./-]+\.\w+", text)
        missing = [name for name in named if not (ROOT / name).exists()]
        assert not missing

    def test_every_workflow_is_listed(self) -> None:
        listed = re.findall(r"\(\.\./workflows/([\w.]+)\)", OF_WORKFLOWS)
        assert sorted(listed) == [path.name for path in WORKFLOWS]


VARIABLES = dict(re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", OF_WORKFLOWS, flags=re.MULTILINE))


# Qlib prints what a template takes from the environment, and this may hold a password.
OF_THE_PACKAGE = ("MLFLOW_TRACKING_URI",)


class TestVariables:
    @pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
    def test_no_template_takes_what_may_hold_a_password(self, workflow: Path) -> None:
        text = workflow.read_text(encoding="utf-8")
        assert not any(variable in re.sub("#.*", "", text) for variable in OF_THE_PACKAGE)

    def test_the_store_is_that_of_the_environment_or_the_default(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert ExperimentManager().uri == VARIABLES["MLFLOW_TRACKING_URI"]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
        assert ExperimentManager().uri == "http://localhost:1"
        assert ExperimentManager("sqlite:///other.db").uri == "sqlite:///other.db"

    @pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
    def test_each_variable_that_a_workflow_reads_is_listed(self, workflow: Path) -> None:
        text = workflow.read_text(encoding="utf-8")
        read = jinja2.meta.find_undeclared_variables(jinja2.Environment(autoescape=True).parse(text))
        assert read <= set(VARIABLES)

    @pytest.mark.parametrize("variable", [name for name in VARIABLES if name not in OF_THE_PACKAGE])
    def test_the_default_that_is_listed_is_that_of_the_workflow(self, variable: str) -> None:
        first = [ROOT / "workflows" / f"{name}_csi300.yaml" for name in ("mimstocr", "walk_forward")]
        texts = [path.read_text(encoding="utf-8") for path in [*first, *WORKFLOWS]]
        text = next(text for text in texts if f"{{{{ {variable} |" in text)
        plain = jinja2.Environment(autoescape=False).from_string(text)
        default = VARIABLES[variable]
        assert plain.render() == plain.render({variable: default}) != plain.render({variable: "another"})
