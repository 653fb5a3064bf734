"""What was called otherwise before version 0.2. An old name does nothing any more but say the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qlib_ext.checks import UserError

SINCE = "0.2"

# Old package or module -> new one; the longest that fits a name counts.
MODULES: Mapping[str, str] = {
    "qlib_ext.build": "qlib_ext.config.build",
    "qlib_ext.causality": "qlib_ext.lookahead",
    "qlib_ext.causality.known": "qlib_ext.lookahead.static_checks",
    "qlib_ext.causality.waves": "qlib_ext.lookahead.batches",
    "qlib_ext.classes": "qlib_ext.config.security",
    "qlib_ext.cli.audit": "qlib_ext.cli.lookahead",
    "qlib_ext.cli.data.side": "qlib_ext.cli.data.side_data",
    "qlib_ext.cli.pairs": "qlib_ext.cli.options",
    "qlib_ext.data.alpha360": "qlib_ext.features.alpha360",
    "qlib_ext.data.concepts": "qlib_ext.features.side_data.concepts",
    "qlib_ext.data.daily_bars": "qlib_ext.features.daily_bars",
    "qlib_ext.data.daily_panel": "qlib_ext.data.panel",
    "qlib_ext.data.expression_text": "qlib_ext.features.expression_text",
    "qlib_ext.data.expressions": "qlib_ext.features.engine.evaluation",
    "qlib_ext.data.foreseen": "qlib_ext.data.spec",
    "qlib_ext.data.handlers.alpha360_panel": "qlib_ext.data.handlers.panel",
    "qlib_ext.data.handlers.daily_bars_panel": "qlib_ext.data.handlers.panel",
    "qlib_ext.data.label_planes": "qlib_ext.data.labels.label_planes",
    "qlib_ext.data.macro": "qlib_ext.features.side_data.macro",
    "qlib_ext.data.market_panel": "qlib_ext.features.market_panel",
    "qlib_ext.data.market_value": "qlib_ext.features.side_data.market_value",
    "qlib_ext.data.source": "qlib_ext.features.side_data.source",
    "qlib_ext.data.windows": "qlib_ext.features.base",
    "qlib_ext.market.audit": "qlib_ext.market.quality",
    "qlib_ext.market.audit.base": "qlib_ext.market.quality.check",
    "qlib_ext.market.audit.finding": "qlib_ext.market.finding",
    "qlib_ext.market.audit.side": "qlib_ext.market.quality.side_data",
    "qlib_ext.market.made": "qlib_ext.market.synthetic",
    "qlib_ext.market.made.made_market": "qlib_ext.market.synthetic.synthetic_market",
    "qlib_ext.market.sides": "qlib_ext.market.side_data",
    "qlib_ext.market.sides.side": "qlib_ext.market.side_data.side_data",
    "qlib_ext.market.sides.side_import": "qlib_ext.market.side_data.import_table",
    "qlib_ext.market.sides.side_table": "qlib_ext.market.side_data.table",
    "qlib_ext.market.sources": "qlib_ext.market.importing",
    "qlib_ext.market.sources.codes": "qlib_ext.market.codes",
    "qlib_ext.market.sources.columns": "qlib_ext.market.columns",
    "qlib_ext.market.traded_money": "qlib_ext.market.traded_value",
    "qlib_ext.market.universes.traded_amount": "qlib_ext.market.traded_value",
    "qlib_ext.packages": "qlib_ext.config.allowlist",
    "qlib_ext.record": "qlib_ext.records",
    "qlib_ext.record.audit": "qlib_ext.records.quality",
    "qlib_ext.record.causality": "qlib_ext.records.lookahead",
    "qlib_ext.record.experiment": "qlib_ext.workflow.experiment",
    "qlib_ext.record.git": "qlib_ext.tracking.git",
    "qlib_ext.record.outbox": "qlib_ext.tracking.outbox",
    "qlib_ext.record.portfolio_measures": "qlib_ext.metrics.portfolio_measures",
    "qlib_ext.record.runs": "qlib_ext.tracking.runs",
    "qlib_ext.record.simulation": "qlib_ext.backtest.simulation",
    "qlib_ext.record.tags": "qlib_ext.tracking.tags",
    "qlib_ext.record.workflow": "qlib_ext.workflow",
    "qlib_ext.report.artifacts": "qlib_ext.tracking.artifacts",
    "qlib_ext.report.judgement": "qlib_ext.report.verdict",
    "qlib_ext.report.sections.audit": "qlib_ext.report.sections.quality",
    "qlib_ext.strategy.exchange_settings": "qlib_ext.backtest.exchange_settings",
    "qlib_ext.strategy.observed_exchange": "qlib_ext.backtest.exchange",
    "qlib_ext.strategy.position": "qlib_ext.backtest.position",
    "qlib_ext.strategy.price_limits": "qlib_ext.market.rules.price_limits",
    "qlib_ext.strategy.ruled_exchange": "qlib_ext.backtest.rule_based_exchange",
}

# Old class -> new one, and behind a space what its configuration must hold beside the name.
CLASSES: Mapping[str, str] = {
    "qlib_ext.data.alpha360.Alpha360Windows": "qlib_ext.features.alpha360.Alpha360",
    "qlib_ext.data.daily_bars.DailyBarsWindows": "qlib_ext.features.daily_bars.DailyBars",
    "qlib_ext.data.foreseen.Foreseen": "qlib_ext.data.spec.DatasetSpec",
    "qlib_ext.data.handlers.alpha360_panel.Alpha360Panel": (
        "qlib_ext.data.handlers.panel.PanelHandler with `features: {class: qlib_ext.features.alpha360.Alpha360}`"
    ),
    "qlib_ext.data.handlers.daily_bars_panel.DailyBarsPanel": (
        "qlib_ext.data.handlers.panel.PanelHandler with `features: {class: qlib_ext.features.daily_bars.DailyBars}`"
    ),
    "qlib_ext.data.market_value.TrailingAmount": "qlib_ext.features.side_data.market_value.TrailingTradedValue",
    "qlib_ext.data.windows.Windows": "qlib_ext.features.base.FeatureSet",
    "qlib_ext.market.audit.finding.Audit": "qlib_ext.market.finding.QualityReport",
    "qlib_ext.market.made.made_market.MadeMarket": "qlib_ext.market.synthetic.synthetic_market.SyntheticMarket",
    "qlib_ext.market.made.made_market.Universe": "qlib_ext.market.synthetic.synthetic_market.UniversePlan",
    "qlib_ext.market.sides.side.SideError": "qlib_ext.market.side_data.side_data.SideDataError",
    "qlib_ext.market.sides.side_import.BroughtIn": "qlib_ext.market.side_data.import_table.ImportedTable",
    "qlib_ext.market.sides.side_table.Rows": "qlib_ext.market.side_data.rows.Rows",
    "qlib_ext.market.traded_money.TradedMoney": "qlib_ext.market.traded_value.ValueInCurrency",
    "qlib_ext.market.universes.traded_amount.TradedAmount": "qlib_ext.market.traded_value.TradedValue",
    "qlib_ext.model.losses.approx_ndcg.CrossEntropyApproxNDCG": (
        "qlib_ext.model.losses.weighted_sum.WeightedSum of CrossEntropy and ApproxNDCG"
    ),
    "qlib_ext.model.losses.pairwise.CrossEntropyPairwise": (
        "qlib_ext.model.losses.weighted_sum.WeightedSum of CrossEntropy and Pairwise"
    ),
    "qlib_ext.model.memory.EvaluationParts": "qlib_ext.model.memory.ChunkedEmbedding",
    "qlib_ext.model.trainer.NotFinite": "qlib_ext.model.step_log.NonFiniteError",
    "qlib_ext.record.audit.AuditRecord": "qlib_ext.records.quality.QualityRecord",
    "qlib_ext.record.causality.CausalityRecord": "qlib_ext.records.lookahead.LookaheadRecord",
    "qlib_ext.record.experiment.Recorder": "qlib_ext.workflow.recorder.Recorder",
    "qlib_ext.record.experiment.Terminated": "qlib_ext.workflow.process_end.SigtermInterrupt",
    "qlib_ext.record.outbox.SteadyClient": "qlib_ext.tracking.buffered_client.BufferedMlflowClient",
    "qlib_ext.record.portfolio_measures.Series": "qlib_ext.metrics.portfolio_series.Series",
    "qlib_ext.record.simulation.Simulated": "qlib_ext.backtest.simulation.BacktestResult",
    "qlib_ext.report.sections.audit.Audit": "qlib_ext.report.sections.quality.Quality",
    "qlib_ext.strategy.observed_exchange.ObservedExchange": "qlib_ext.backtest.exchange.RecordingExchange",
    "qlib_ext.strategy.ruled_exchange.RuledExchange": "qlib_ext.backtest.rule_based_exchange.RuleBasedExchange",
}

# Of a run.
ARTIFACTS: Mapping[str, str] = {
    "data/audit.json": "data/quality.json",
    "causality/audit.json": "lookahead/audit.json",
}
# First part of a metric's name.
METRICS: Mapping[str, str] = {"audit/": "quality/", "causality/": "lookahead/"}

# Commands of `qlib-ext`.
COMMANDS: Mapping[str, str] = {"audit": "lookahead", "data side": "data side-data"}


class RenamedError(UserError):
    """A name of an earlier version."""


def new_name(path: str) -> str | None:
    """What an old dotted class or module is called now; None where `path` is no old name."""
    if path in CLASSES:
        return CLASSES[path].partition(" ")[0]
    for end in range(len(path), 0, -1):
        if path[end : end + 1] in ("", ".") and path[:end] in MODULES:
            return MODULES[path[:end]] + path[end:]
    return None


def check_current(path: str, *, name: str) -> None:
    """Raise a RenamedError if `path` is the old name of a class.

    Parameters
    ----------
    path
        A dotted class.
    name
        Where in the configuration it stands, for messages.
    """
    new = new_name(path)
    if new is not None:
        beside = CLASSES.get(path, "").removeprefix(new)
        raise RenamedError(f"`{name}.class` names `{path}`, which is `{new}`{beside} since {SINCE}")


def check_command(words: Sequence[str]) -> None:
    """Raise a RenamedError if the words of a command line begin with an old command."""
    for old, new in COMMANDS.items():
        if [*words[: len(old.split())]] == old.split():
            raise RenamedError(f"`qlib-ext {old}` is `qlib-ext {new}` since {SINCE}")
