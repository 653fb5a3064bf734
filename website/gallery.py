"""Notebooks of `docs/gallery`, kept as Python files (jupytext's percent format), as pages with what they show."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

FRAME = re.compile(r'<iframe src="([^"]+)"')
# Charts as PNG are for MLflow, and take longer than everything else that a little run does.
BEFORE = """
from qlib_ext.report.document import Document
Document.pictures = lambda *_: {}
"""


def read(path: Path) -> NotebookNode:
    """A notebook that was not run."""
    return jupytext.read(path)


def run(paths: Iterable[Path], work: Path) -> dict[str, NotebookNode]:
    """Run notebooks one after the other, each in a kernel and a folder of its own.

    Parameters
    ----------
    paths
        The Python files.
    work
        Where the folders are made, called as the files.

    Returns
    -------
    Name -> notebook with what its cells showed.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        Of the first cell that failed.
    """
    done: dict[str, NotebookNode] = {}
    for path in paths:
        folder = work / path.stem
        folder.mkdir(exist_ok=True)
        notebook = read(path)
        notebook.cells.insert(0, new_code_cell(BEFORE))
        client = NotebookClient(notebook, timeout=1200, startup_timeout=600, kernel_name="python3")
        client.execute(cwd=str(folder))
        del notebook.cells[0]
        done[path.stem] = notebook
    return done


def page(notebook: NotebookNode, name: str, work: Path | None = None) -> tuple[str, Mapping[str, bytes]]:
    """A notebook as Markdown, and the files that it shows, by their paths beside the page."""
    from nbconvert import MarkdownExporter

    exporter = MarkdownExporter(preprocessors=[])
    text, resources = exporter.from_notebook_node(notebook, {"output_files_dir": name})
    files: dict[str, bytes] = dict(resources["outputs"])
    if work is not None:
        text = text.replace(f"{work / name}/", "")  # where it was run is nobody's business
    for source in FRAME.findall(text):
        assert work is not None
        files[f"{name}/{Path(source).name}"] = (work / name / source).read_bytes()
        text = text.replace(source, f"{name}/{Path(source).name}")
    return text, files


if __name__ == "__main__":
    folder = Path(__file__).parents[1] / "docs" / "gallery"
    with tempfile.TemporaryDirectory() as where:
        run(sorted(folder.glob("*.py")), Path(where))
