"""How the training went: losses, balance and validation scores by epoch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.page import slug
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

LOSS = "train/loss/"
FEW = 16  # epochs; fewer have a dot each
BETA = "\N{GREEK SMALL LETTER BETA}"
CAPTIONS = {
    "V": "Change of a task's validation loss over that of its train loss, mean of the window.",
    BETA: "Share of the past in a task's smoothed gradient.",
    "Weight": "Weight of a task's loss, mean of the epoch.",
    "Gradient norm": "Length of a task's gradient on the parameters that the tasks share, mean of the epoch.",
    "Weight decay": "Weight decay of the optimizer.",
    "Gradient cosine": "Cosine of the angle between the tasks' gradients: 1 the same way, 0 at right angles, below 0 "
    "against each other.",
    "Validation IC": "Mean over days of the correlation of score and return (IC), and of their ranks (RankIC).",
    "Validation accuracy": "Share of the stocks whose class is right.",
    "Validation score": "By which the best epoch is chosen, the higher the better.",
    "Learning rate": "Learning rate of the optimizer.",
    "Seconds an epoch": "Wall-clock time of the passes that train, and of measuring the losses and scores.",
}


class Training(Section):
    """Losses of each task on train and validation, what the balancer made of them, and the validation scores."""

    title = "Training"
    place = 190
    answers = "Did it learn, did it overfit, what did the balancer do?"
    requires = ("training/history.parquet",)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Losses, balance, validation scores, learning rate and time, each where the history has it."""
        history = _history(run)
        marks = _marks(history)
        return {
            f"training_{k}-{slug(panel)}": Lines(
                series=lines,
                ylabel=panel,
                xlabel="epoch",
                height=240,
                marks=marks,
                dots=len(history) < FEW,
                alt=f"{panel} by epoch",
                caption=CAPTIONS.get(
                    panel, "Mean of the days, measured the same way on train and on validation."
                ),
            )
            for k, (panel, lines) in enumerate(_panels(history), 1)
        }

    def render(self, run: RunArtifacts) -> str:
        """What happened in a sentence, then the curves and the best epoch in figures."""
        history = _history(run)
        charts = self.charts(run)
        by_panel = {chart.ylabel: shown(name, chart) for name, chart in charts.items()}
        groups = {
            "Losses": _losses(history),
            "What the balancer did": _balance(history),
            "On the validation segment": _validation(history),
            "Learning rate and time": _course(history),
        }
        parts = [html.paragraph(_told(history, _best(history)))]
        for title, panels in groups.items():
            if panels:
                parts.append(html.heading(title))
                parts.append(html.beside(*(by_panel[panel] for panel in panels)))
        if not groups["What the balancer did"]:
            parts.append(html.paragraph("The balancer of this run logs nothing of its own.", "note"))
        parts.append(_figures(history))
        parts.append(
            html.paragraph(
                f"The dotted line marks the epoch whose weights were kept. {_balance_explained(history)} "
                "Every epoch is in the run's artifact training/history.csv.",
                "note",
            )
        )
        return "".join(parts)


def _history(run: RunArtifacts) -> pd.DataFrame:
    return run.table("training/history.parquet").set_index("epoch").sort_index()


def _best(history: pd.DataFrame) -> int | None:
    """The last epoch that was the best so far: the one whose weights were kept."""
    marked = history.index[history["best"].astype(bool)]
    return int(marked[-1]) if len(marked) else None


def _marks(history: pd.DataFrame) -> dict[str, int]:
    """The epoch whose weights were kept, and where the later phases begin."""
    kept = _best(history)
    marks = {} if kept is None else {"kept": kept}
    if "phase" in history:
        begins = history.index[history["phase"].diff() > 0]
        marks |= {f"phase {int(history.loc[epoch, 'phase'])} begins": int(epoch) for epoch in begins}
    return marks


def _panels(history: pd.DataFrame) -> list[tuple[str, dict[str, pd.Series]]]:
    parts = (_losses(history), _balance(history), _validation(history), _course(history))
    return [panel for part in parts for panel in part.items()]


def _course(history: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    """Learning rate, where it is logged, and time."""
    panels = {
        "Learning rate": _present(history, {"learning rate": "learning_rate"}),
        "Seconds an epoch": _present(history, {"train": "seconds/train", "measure": "seconds/evaluate"}),
    }
    return {title: lines for title, lines in panels.items() if lines}


def _figures(history: pd.DataFrame) -> str:
    """The kept epoch beside the first and the last, in figures."""
    kept = _best(history)
    epochs = {"First epoch": history.index[0], "Last epoch": history.index[-1]}
    if kept is not None:
        epochs = {"First epoch": epochs["First epoch"], "Kept": kept, "Last epoch": epochs["Last epoch"]}
    rows = [
        (
            f"{panel}, {line}" if len(lines) > 1 else panel,
            *(_figure(values, epoch) for epoch in epochs.values()),
        )
        for part in (_losses(history), _validation(history))
        for panel, lines in part.items()
        for line, values in lines.items()
    ]
    header = ["", *(f"{name} ({epoch})" for name, epoch in epochs.items())]
    return html.table(header, rows, numbers=range(1, len(header)))


def _figure(values: pd.Series, epoch: int) -> str:
    return html.number(float(values.loc[epoch]), 4)


def _tasks(history: pd.DataFrame) -> list[str]:
    return [str(column).removeprefix(LOSS) for column in history.columns if str(column).startswith(LOSS)]


def _losses(history: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    return {
        f"Loss of {task}": {
            "train": history[f"{LOSS}{task}"],
            "validation": history[f"valid/loss/{task}"],
        }
        for task in _tasks(history)
    }


def _balance(history: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    """Panels of what the balancer logged; a balancer without V or beta has fewer."""
    wanted = {
        "V": "balance/V/",
        BETA: "balance/beta/",
        "Weight": "balance/weight/",
        "Gradient norm": "gradient/norm/",
    }
    panels = {title: _by_task(history, prefix) for title, prefix in wanted.items()}
    panels["Weight decay"] = _present(history, {"weight decay": "balance/weight_decay"})
    panels["Gradient cosine"] = _present(history, {"cosine": "gradient/cosine"})
    return {title: lines for title, lines in panels.items() if lines}


def _balance_explained(history: pd.DataFrame) -> str:
    """What the panels that this balancer fills mean."""
    panels = _balance(history)
    said = []
    if "V" in panels:
        said.append(
            "V below zero means that the task overfits: its train loss falls while its validation loss rises. From V "
            f"follow {BETA}, the share of the past in the smoothed gradient, and the weight decay."
        )
    if "Weight" in panels:
        said.append("The weights are those that the balancer gave the losses, mean over an epoch.")
    if "Gradient norm" in panels:
        said.append(
            "The norm is of each task's gradient on the shared parameters, mean over an epoch (over every 20th day under a "
            "balancer that does not need it)."
        )
    if "Gradient cosine" in panels:
        said.append("With a cosine below zero the gradients of the tasks pull apart.")
    if "V" not in panels and "Weight decay" in panels:
        said.append("The weight decay is fixed.")
    return " ".join(said)


def _validation(history: pd.DataFrame) -> dict[str, dict[str, pd.Series]]:
    panels = {
        "Validation IC": _present(history, {"IC": "valid/ic", "RankIC": "valid/rank_ic"}),
        "Validation accuracy": _by_task(history, "valid/accuracy/"),
        "Validation score": _present(history, {"score": "valid/score"}),
    }
    return {title: lines for title, lines in panels.items() if lines}


def _by_task(history: pd.DataFrame, prefix: str) -> dict[str, pd.Series]:
    names = {
        str(column).removeprefix(prefix): str(column)
        for column in history.columns
        if column.startswith(prefix)
    }
    return _present(history, names)


def _present(history: pd.DataFrame, names: Mapping[str, str]) -> dict[str, pd.Series]:
    return {
        name: history[column]
        for name, column in names.items()
        if column in history and history[column].notna().any()
    }


def _told(history: pd.DataFrame, best: int | None) -> str:
    seconds = sum(
        history[column].sum() for column in ("seconds/train", "seconds/evaluate") if column in history
    )
    time = (
        f" in {seconds / 60:.1f} minutes"
        if seconds >= 60
        else f" in {seconds:.0f} seconds"
        if seconds
        else ""
    )
    epochs = f"{len(history)} epoch" + ("s" if len(history) != 1 else "")
    kept = (
        "no epoch was marked best"
        if best is None
        else f"epoch {best} had the best validation score and was kept"
    )
    return f"{epochs}{time}; {kept}."
