"""How the training went: losses, balance and validation scores by epoch."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from qlib_ext.report import html
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.figures import by_epoch
from qlib_ext.report.sections.base import Section, shown

LOSS = "train/loss/"


class Training(Section):
    """Losses of each task on train and validation, what the balancer made of them, and the validation scores."""

    title = "Training"
    requires = ("training/history.parquet",)

    def figures(self, run: RunArtifacts) -> Mapping[str, Figure]:
        """Losses, balance and validation scores, each where the history has it."""
        history = _history(run)
        best = _best(history)
        found = {"losses": by_epoch(_losses(history), best=best)}
        balance = _balance(history)
        if balance:
            found["balance"] = by_epoch(balance, best=best)
        found["validation"] = by_epoch(_validation(history), best=best)
        return found

    def render(self, run: RunArtifacts) -> str:
        """What happened in a sentence, then the curves."""
        history = _history(run)
        best = _best(history)
        figures = self.figures(run)
        tasks = _tasks(history)
        parts = [html.paragraph(_told(history, best))]
        parts.append(
            shown(
                figures["losses"],
                alt=f"Losses of {', '.join(tasks)} on train and validation by epoch",
                caption="Loss of each task, measured the same way on train (dashed) and validation (solid). The "
                "dotted line marks the epoch whose weights were kept.",
            )
        )
        if "balance" in figures:
            parts.append(
                shown(
                    figures["balance"],
                    alt="What the balancer did by epoch",
                    caption=_balance_explained(history),
                )
            )
        else:
            parts.append(html.paragraph("The balancer of this run logs nothing of its own.", "note"))
        parts.append(
            shown(
                figures["validation"],
                alt="Validation scores by epoch",
                caption="On the validation segment: mean daily IC and RankIC, accuracy of the classes, and the score by "
                "which the best epoch is chosen.",
            )
        )
        return "".join(parts)


def _history(run: RunArtifacts) -> pd.DataFrame:
    return run.table("training/history.parquet").set_index("epoch").sort_index()


def _best(history: pd.DataFrame) -> int | None:
    """The last epoch that was the best so far: the one whose weights were kept."""
    marked = history.index[history["best"].astype(bool)]
    return int(marked[-1]) if len(marked) else None


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
