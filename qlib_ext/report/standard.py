"""The standard report: which sections it has, in which order, and which of them a run can feed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.report.document import Document, LeftOut
from qlib_ext.report.sections.base import Section
from qlib_ext.report.sections.provenance import Provenance
from qlib_ext.tracking.artifacts import RunArtifacts, missing_message, stored

# In the order of the page. A section is part of the report of a run that has all artifacts that it requires.
SECTIONS: tuple[str, ...] = (
    "qlib_ext.report.sections.summary.Summary",
    "qlib_ext.report.sections.cumulative_return.CumulativeReturn",
    "qlib_ext.report.sections.drawdown.Drawdown",
    "qlib_ext.report.sections.return_and_risk.ReturnAndRisk",
    "qlib_ext.report.sections.months_and_years.MonthsAndYears",
    "qlib_ext.report.sections.rolling_risk.RollingRisk",
    "qlib_ext.report.sections.costs.Costs",
    "qlib_ext.report.sections.holdings.Holdings",
    "qlib_ext.report.sections.contributors.Contributors",
    "qlib_ext.report.sections.sweeps.Sweeps",
    "qlib_ext.report.sections.trades.Trades",
    "qlib_ext.report.sections.capacity.Capacity",
    "qlib_ext.report.sections.information_coefficient.InformationCoefficient",
    "qlib_ext.report.sections.quantiles.Quantiles",
    "qlib_ext.report.sections.precision.Precision",
    "qlib_ext.report.sections.score.Score",
    "qlib_ext.report.sections.momentum.Momentum",
    "qlib_ext.report.sections.direction.Direction",
    "qlib_ext.report.sections.training.Training",
    "qlib_ext.report.sections.quality.Quality",
    "qlib_ext.report.sections.provenance.Provenance",
)


def sections() -> list[Section]:
    """One of each section, in their order."""
    return [build({"class": path}, Section, name=f"SECTIONS[{k}]") for k, path in enumerate(SECTIONS)]


def of_run(
    client: MlflowClient,
    run_id: str,
    root: Path,
    wanted: Sequence[Section] | None = None,
    also: Sequence[Section] = (),
    makers: Mapping[str, str] | None = None,
) -> tuple[Document, RunArtifacts]:
    """The report of a run on MLflow, and the artifacts that it is made from.

    Parameters
    ----------
    client, run_id
        The run and the store that has it.
    root
        An empty folder to fetch artifacts into.
    wanted
        Sections, all of which the run must be able to feed. The default is the standard report, as far as the run
        can feed it: `info["left_out"]` of the artifacts names the others, a `LeftOut` each.
    also
        More sections, which the run must be able to feed, before the provenance where that comes last.
    makers
        Artifact path -> the record that makes it: what is missing is named with it.

    Raises
    ------
    UserError
        If the run cannot feed a section that was asked for, or none of the standard report.
    """
    every = [*(sections() if wanted is None else wanted)]
    behind = [every.pop()] if every and isinstance(every[-1], Provenance) else []
    document = Document([*every, *also, *behind])
    there = stored(client, run_id, document.reads)
    left_out: tuple[LeftOut, ...] = ()
    if wanted is None:
        kept, left_out = fed(document.sections, there, always=also)
        if not any(section.requires for section in kept if section not in also):
            raise UserError(missing_message("the standard report", document.requires, makers or {}))
        document = Document(kept)
    missing = [path for path in document.requires if path not in there]
    if missing:
        raise UserError(missing_message("the report", missing, makers or {}))
    run = RunArtifacts.download(client, run_id, there, root, makers)
    return document, dataclasses.replace(run, info={**run.info, "left_out": left_out})


def folder_name(run: RunArtifacts) -> str:
    """What the folder of a run's report is called: the experiment, and the first digits of the run's id."""
    return re.sub(r"[^\w.-]+", "-", str(run.info["experiment"])) + f"-{run.info['run_id'][:8]}"


def fed(
    wanted: Sequence[Section], there: Collection[str], always: Sequence[Section] = ()
) -> tuple[list[Section], tuple[LeftOut, ...]]:
    """The sections whose artifacts are there, with those of `always`, and what is left out."""
    kept, left_out = [], []
    for section in wanted:
        missing = tuple(path for path in section.requires if path not in there)
        if missing and section not in always:
            left_out.append(LeftOut(section.title, missing))
        else:
            kept.append(section)
    return kept, tuple(left_out)
