"""How the training went: losses, balance and validation scores by epoch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.page import slug
from qlib_ext.report.sections.base import Section, shown

LOSS = "train/loss/"


class Training(Section):
    """Losses of each task on train and validation, what the balancer made of them, and the validation scores."""

    title = "Training"
    requires = ("training/history.parquet",)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Losses, balance and validation scores, each where the history has it."""
        history = _history(run)
        kept = _best(history)
        return {
            f"training_{k}-{slug(panel)}": Lines(
                series=lines,
                ylabel=panel,
                xlabel="epoch",
                height=240,
                marks={} if kept is None else {"kept": kept},
                alt=f"{panel} by epoch",
                caption=f"{panel} by epoch.",
            )
            for k, (panel, lines) in enumerate(_panels(history), 1)
        }

    def render(self, run: RunArtifacts) -> str:
        """What happened in a sentence, then the curves."""
        history = _history(run)
        drawn = "".join(shown(name, chart) for name, chart in self.charts(run).items())
        explained = (
            _balance_explained(history)
            if _balance(history)
            else "The balancer of this run logs nothing of its own."
        )
        return "".join(
            [
                html.paragraph(_told(history, _best(history))),
                f'<div class="charts">{drawn}</div>',
                html.paragraph(
                    "The loss of each task is measured the same way on train and validation. The dotted line marks the "
                    f"epoch whose weights were kept. {explained} Validation scores are those of the validation segment: mean "
                    "daily IC and RankIC, accuracy of the classes, and the score by which the best epoch is chosen.",
                    "note",
                ),
            ]
        )


def _history(run: RunArtifacts) -> pd.DataFrame:
    return run.table("training/history.parquet").set_index("epoch").sort_index()


def _best(history: pd.DataFrame) -> int | None:
    """The last epoch that was the best so far: the one whose weights were kept."""
    marked = history.index[history["best"].astype(bool)]
    return int(marked[-1]) if len(marked) else None


def _panels(history: pd.DataFrame) -> list[tuple[str, dict[str, pd.Series]]]:
    return [*_losses(history).items(), *_balance(history).items(), *_validation(history).items()]


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
        "\N{GREEK SMALL LETTER BETA}": "balance/beta/",
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
            "V is the change of the validation loss over that of the train loss: below zero, the task overfits. From it "
            "follow \N{GREEK SMALL LETTER BETA}, the share of the past in the smoothed gradient, and the weight decay."
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
