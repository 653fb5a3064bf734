"""The report of the run, in the run, in a folder of reports and in short on the terminal."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build
from qlib_ext.paths import writable
from qlib_ext.records.base import Record
from qlib_ext.records.makers import makers
from qlib_ext.report import headline, note, standard, verdict
from qlib_ext.report.document import Document
from qlib_ext.report.sections.base import Section
from qlib_ext.terminal import cell, console, empty_table
from qlib_ext.tracking.artifacts import RunArtifacts, put


class ReportRecord(Record):
    """Build the HTML report from the run's artifacts, and show the headline on the terminal.

    Writes `report/report.html` and `figures/<name>.png`, and a copy of the report to
    `<out_dir>/<experiment>-<first eight digits of the run id>/report.html`. The run's description on MLflow becomes the
    verdict and the headline figures (`qlib_ext.report.note`).

    Parameters
    ----------
    recorder
        Given by Qlib.
    sections
        `{class: dotted path, kwargs: {...}}` of each section, in the order of the page; the run must have what they
        require. The default is the standard report, every section of the package by its `place`, without those whose
        artifacts the run lacks: the page names them and the records that make them.
    also
        More sections, in the same form, behind the others but for the provenance.
    out_dir
        Folder of reports, relative to the working directory.

    Raises
    ------
    UserError
        If a section cannot be built, or the run lacks an artifact that a section requires.
    """

    makes = ("report/report.html",)

    def __init__(
        self,
        recorder: Any,
        sections: Sequence[Mapping[str, Any]] | None = None,
        also: Sequence[Mapping[str, Any]] = (),
        out_dir: str = "reports/runs",
    ):
        super().__init__(recorder)
        self.sections = None if sections is None else _built("sections", sections)
        self.also = _built("also", also)
        named = [*(self.sections or []), *self.also]
        if named or sections is not None:
            self.needs = tuple(Document(named).requires)
        if not isinstance(out_dir, (str, Path)) or not str(out_dir):
            raise UserError(f"`out_dir` must be a folder, found {brief(out_dir)}")
        self.out_dir = Path(out_dir)

    def check_places(self) -> None:
        """The folder of reports must be one that can be written."""
        writable(self.out_dir, name="`out_dir` of the report", way_out="name another")

    def _generate(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            document, run = standard.of_run(
                self.recorder.client, self.recorder.id, Path(folder), self.sections, self.also, makers()
            )
            page = document.render(run)
            self.save_text("report/report.html", page)
            for name, picture in document.pictures(run).items():
                self.save_bytes(f"figures/{name}", picture)
            if headline.has(run, headline.REQUIRES):
                self.log_tags({note.TAG: note.note(run)})
            self._show(run, self._copy(page, standard.folder_name(run)))

    def _copy(self, page: str, folder: str) -> Path:
        """Put the report where a person looks for it."""
        target = self.out_dir / folder / "report.html"
        put(target, page)
        return target.resolve()

    def _show(self, run: RunArtifacts, report: Path) -> None:
        terminal = console()
        synthetic = verdict.synthetic(run)
        if synthetic:
            terminal.print(f"[bold yellow]{cell(synthetic)}[/bold yellow]")
        if headline.has(run, headline.REQUIRES):
            terminal.print(headline_table(run))
        facts = {
            "Report": report,
            "MLflow store": run.info["tracking_uri"],
            "Experiment": run.info["experiment"],
            "Run": run.info["run_id"],
        }
        for name, fact in facts.items():  # one line each, however long: a path is there to be copied
            terminal.print(f"[bold]{name:<14}[/bold]{cell(fact)}", soft_wrap=True, highlight=False)


def _built(name: str, sections: Sequence[Mapping[str, Any]]) -> list[Section]:
    if not isinstance(sections, (list, tuple)):
        raise UserError(f"`{name}` must be a list of sections, found {brief(sections)}")
    return [build(section, Section, name=f"{name}[{k}]") for k, section in enumerate(sections)]


def headline_table(run: RunArtifacts) -> Table:
    """The report's headline table for a terminal."""
    shown = empty_table(run.info.get("experiment", ""))
    shown.add_column("Measure", overflow="fold")
    shown.add_column("Value", justify="right", no_wrap=True)
    shown.add_column("95% interval", justify="right", no_wrap=True)
    shown.add_column("Beside it", overflow="fold")
    for group in headline.groups(run):
        shown.add_section()
        shown.add_row(f"[bold]{cell(group.title)}[/bold]")
        for row in group.rows:
            shown.add_row(cell(row.name), row.value, row.interval, cell(row.beside))
    return shown
