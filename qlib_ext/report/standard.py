"""The standard report: which sections it has, in which order, and which of them a run can feed."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.config.build import classes_in
from qlib_ext.paths import file_name, writable
from qlib_ext.report import sections as package
from qlib_ext.report.document import Document
from qlib_ext.report.language import language
from qlib_ext.report.sections.base import LeftOut, Section
from qlib_ext.report.sections.provenance import Provenance
from qlib_ext.tracking.artifacts import RunArtifacts, missing_message, put, stored

RUNS = Path("reports/runs")


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


@dataclasses.dataclass(frozen=True)
class WrittenReport:
    """A report on disk.

    Attributes
    ----------
    path
        The page.
    run
        The artifacts that it was made from.
    status
        Of the run, as MLflow has it.
    """

    path: Path
    run: RunArtifacts
    status: str

    @property
    def left_out(self) -> list[str]:
        """Titles of the sections that the run could not feed."""
        return [part.title for part in self.run.info["left_out"]]


def write_report(
    client: MlflowClient,
    found: Run,
    out: Path | None = None,
    *,
    figures: bool = False,
    lang: str = "en",
    makers: Mapping[str, str] | None = None,
) -> WrittenReport:
    """Make the standard report of a run again, and write it.

    Parameters
    ----------
    client, found
        The run and the store that has it.
    out
        Folder for report.html; by default `reports/runs/<experiment>-<id>`, where the run put its own.
    figures
        Whether every chart is written as PNG too, into `figures` beside it.
    lang
        Language of the page, of `qlib_ext.report.language.languages`: another than English is written beside it, as
        report.<lang>.html.
    makers
        As `of_run` takes it.

    Raises
    ------
    UserError
        As from `of_run`, or where the folder cannot be written.
    """
    spoken = language(lang)
    writable(out or RUNS, name="the folder of the report", way_out="name another")
    with tempfile.TemporaryDirectory() as folder:
        document, artifacts = of_run(client, found.info.run_id, Path(folder), makers=makers)
        page = document.render(artifacts, spoken)
        pictures = document.pictures(artifacts) if figures else {}
    place = out if out is not None else RUNS / folder_name(artifacts)
    path = place / ("report.html" if lang == "en" else f"report.{lang}.html")
    put(path, page)
    for name, picture in pictures.items():
        put(place / "figures" / name, picture)
    return WrittenReport(path.resolve(), artifacts, found.info.status)


def folder_name(run: RunArtifacts) -> str:
    """What the folder of a run's report is called: the experiment, and the first digits of the run's id."""
    return report_folder(str(run.info["experiment"]), run.info["run_id"])


def report_folder(experiment: str, run_id: str) -> str:
    """The same, from the two: what else is named after a run has this name too."""
    return f"{file_name(experiment)}-{run_id[:8]}"


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
