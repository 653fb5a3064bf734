"""A comparison on disk: its page and its tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from qlib_ext.masking import masked
from qlib_ext.paths import file_name
from qlib_ext.report.comparison.compared import Comparison
from qlib_ext.report.comparison.document import render
from qlib_ext.report.language import language
from qlib_ext.terminal import visible

FOLDER = Path("reports/comparisons")


def folder_of(wanted: Sequence[str]) -> Path:
    """Where the comparison of what was asked for lies, unless another folder is named."""
    return FOLDER / (file_name(" ".join(wanted)).strip("-.") or "runs")


def page_of(
    comparison: Comparison,
    wanted: Sequence[str],
    store: str,
    *,
    by: Sequence[str] = (),
    out: Path | None = None,
    tracking_uri: str | None = None,
    lang: str = "en",
) -> str:
    """The page, with the command that makes it again.

    Parameters
    ----------
    comparison
        What is shown.
    wanted, by, out, tracking_uri, lang
        As the command `qlib-ext compare` was given them.
    store
        MLflow's store that has the runs.
    """
    facts = {
        "Made by": shlex.join(_command(wanted, out, comparison, by, tracking_uri, lang)),
        "MLflow store": masked(store),
        "Asked for": ", ".join(wanted),
        "Baseline": comparison.baseline.name,
        "Grouped by": ", ".join(by) if by else "all parameters that differ, the seed apart",
    }
    return render(comparison, f"Comparison of {', '.join(wanted)}", facts, language(lang))


def write(folder: Path, page: str, comparison: Comparison, lang: str = "en") -> list[Path]:
    """Write the page and the tables as CSV; the files, the page first, which has another name in another language."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "groups.csv": comparison.summary.reset_index(),
        "runs.csv": comparison.runs,
        "tests.csv": comparison.tests,
        "configuration.csv": comparison.configuration.reset_index(),
    }
    for name, table in tables.items():
        (folder / name).write_text(csv(table), encoding="utf-8")
    path = folder / ("comparison.html" if lang == "en" else f"comparison.{lang}.html")
    path.write_text(page, encoding="utf-8")
    return [path, *(folder / name for name in tables)]


def csv(table: pd.DataFrame) -> str:
    """A table as CSV, whose names move no cursor and begin no line."""
    plain = table.rename(columns=visible).map(lambda each: visible(each) if isinstance(each, str) else each)
    return plain.to_csv(index=False)


def _command(
    wanted: Sequence[str],
    out: Path | None,
    comparison: Comparison,
    by: Sequence[str],
    uri: str | None,
    lang: str,
) -> list[str]:
    """The command that makes the page again, without a password."""
    words = ["qlib-ext", "compare", *wanted, "--baseline", comparison.baseline.name]
    for key in by:
        words += ["--by", key]
    if out is not None:
        words += ["--out", str(out)]
    if uri is not None:
        words += ["--tracking-uri", masked(uri)]
    return words if lang == "en" else [*words, "--lang", lang]
