"""The standard report: which sections it has, in which order, and which of them a run can feed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.config.build import classes_in
from qlib_ext.paths import file_name
from qlib_ext.report import sections as package
from qlib_ext.report.document import Document
from qlib_ext.report.sections.base import LeftOut, Section
from qlib_ext.report.sections.provenance import Provenance
from qlib_ext.tracking.artifacts import RunArtifacts, missing_message, stored


def sections() -> list[Section]:
    """One of each section of the package that has a place in the report, in the order of their places."""
    placed = [(kind.place, kind) for kind in classes_in(package, Section) if kind.place is not None]
    return [kind() for _, kind in sorted(placed, key=lambda pair: pair[0])]


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
    return f"{file_name(str(run.info['experiment']))}-{run.info['run_id'][:8]}"


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
