"""The standard report: which sections it has, in which order, and which of them a run can feed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow.tracking import MlflowClient

from qlib_ext.build import build
from qlib_ext.checks import UserError
from qlib_ext.report.artifacts import RunArtifacts, missing_message, stored
from qlib_ext.report.document import Document
from qlib_ext.report.sections.base import Section

# In the order of the page. A section is part of the report of a run that has all artifacts that it requires.
SECTIONS: tuple[str, ...] = (
    "qlib_ext.report.sections.headline.Headline",
    "qlib_ext.report.sections.cumulative_return.CumulativeReturn",
    "qlib_ext.report.sections.drawdown.Drawdown",
    "qlib_ext.report.sections.information_coefficient.InformationCoefficient",
    "qlib_ext.report.sections.precision.Precision",
    "qlib_ext.report.sections.training.Training",
    "qlib_ext.report.sections.audit.Audit",
    "qlib_ext.report.sections.provenance.Provenance",
)


class LeftOut(NamedTuple):
    """A section that a run cannot feed, and the artifacts that it lacks."""

    title: str
    missing: tuple[str, ...]


def sections() -> list[Section]:
    """One of each section, in their order."""
    return [build({"class": path}, Section, name=f"SECTIONS[{k}]") for k, path in enumerate(SECTIONS)]


def of_run(
    client: MlflowClient, run_id: str, root: Path, wanted: Sequence[Section] | None = None
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

    Raises
    ------
    UserError
        If the run cannot feed a section that was asked for, or none of the standard report.
    """
    document = Document(sections() if wanted is None else wanted)
    there = stored(client, run_id, document.reads)
    left_out: list[LeftOut] = []
    if wanted is None:
        lacking = [
            (section, tuple(path for path in section.requires if path not in there))
            for section in document.sections
        ]
        left_out = [LeftOut(section.title, missing) for section, missing in lacking if missing]
        feeding = [section for section, missing in lacking if section.requires and not missing]
        if not feeding:
            raise UserError(missing_message("the standard report", dict.fromkeys(document.requires)))
        document = Document([section for section, missing in lacking if not missing])
    missing = [path for path in document.requires if path not in there]
    if missing:
        raise UserError(missing_message("the report", missing))
    run = RunArtifacts.download(client, run_id, there, root)
    return document, dataclasses.replace(run, info={**run.info, "left_out": tuple(left_out)})
