"""What the golden workflows gave when they were last renewed, and how what they give now differs from it.

`expected/NAME.json` has, for each workflow, its statistics to six digits, and of its orders, its scores and the tables
of each section of its report the number of rows, a hash of them and a few of them to look at. `python -m
tests.golden.renew` writes these files anew; git then shows what has changed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAMES = ("lstm_cqb", "gats", "hist_side_data", "lightgbm", "resnext_phases")
SHOWN = 5  # rows at either end that stand beside a hash

# The hashes hold where this is so; elsewhere sums are taken in another order, and statistics are near, not equal.
SAME_PLATFORM = sys.platform == "linux" and platform.machine() == "x86_64"
HERE_RTOL, HERE_ATOL = 2e-5, 1e-9  # two units of the last digit that is kept
ELSEWHERE_RTOL, ELSEWHERE_ATOL = 0.05, 0.02
# The trainings that make much of the last bit, and the beginnings of their statistics that are near even so.
SENSITIVE: Mapping[str, tuple[str, ...]] = {
    "resnext_phases": ("quality/", "base_rate", "lookahead/", "days", "train/loss/", "valid/loss/"),
}

# Libraries choose their code by the processor, and other code rounds otherwise. This is the code that all x86-64
# processors of the last fifteen years have.
PORTABLE: Mapping[str, str] = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Nehalem",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    # numpy 2.4's names; it passes over those that the processor lacks.
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "ARROW_USER_SIMD_LEVEL": "NONE",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MPLBACKEND": "Agg",
    "TZ": "UTC",
}


def environment() -> dict[str, str]:
    """The environment of the program that runs the workflows: portable, and without a developer's own settings."""
    kept = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")
    own = {name: os.environ[name] for name in kept if name in os.environ}
    return {**own, **PORTABLE, "PYTHONPATH": str(ROOT)}


def run(folder: Path, names: Sequence[str] = NAMES) -> dict[str, dict[str, Any]]:
    """Run the workflows in `folder`, and return what each left; one that failed is left out, see `failure`.

    Raises
    ------
    RuntimeError
        If not even the markets could be made, with the end of what was printed.
    """
    log = folder / "log.txt"
    command = [sys.executable, "-m", "tests.golden.run_workflows", str(folder), *names]
    with log.open("w", encoding="utf-8") as stream:
        subprocess.run(
            command, cwd=ROOT, env=environment(), stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    if not (folder / "runs").is_dir():
        raise RuntimeError(f"no golden workflow began:\n{_end(log)}")
    files = {name: found_file(folder, name) for name in names}
    return {
        name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()
    }


def found_file(folder: Path, name: str) -> Path:
    """The file of all that a workflow left."""
    return folder / "found" / f"{name}.json"


def failure(folder: Path, name: str) -> str:
    """What a workflow that failed printed last."""
    return f"the workflow failed:\n{_end(folder / 'runs' / name / 'log.txt')}"


def _end(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]


def summarise(left: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of what a workflow left."""
    scores = left["scores"]
    last = [line for line in scores if line.split()[0] == scores[-1].split()[0]]
    return {
        "statistics": left["statistics"],
        "orders": hashed(left["orders"], first=left["orders"][:SHOWN], last=left["orders"][-SHOWN:]),
        "scores": hashed(scores, of_the_last_day=last[:SHOWN]),
        "report": {title: hashed(rows, first=rows[:2]) for title, rows in left["report"].items()},
    }


def hashed(rows: Sequence[str], **shown: Sequence[str]) -> dict[str, Any]:
    """The number of rows, a hash of them, and those that are to be shown."""
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()[:16]
    return {"rows": len(rows), "hash": digest, **shown}


def file_of(name: str) -> Path:
    """Where what is expected of a workflow is kept."""
    return HERE / "expected" / f"{name}.json"


def expected(name: str) -> dict[str, Any]:
    """What is expected of a workflow."""
    return json.loads(file_of(name).read_text(encoding="utf-8"))


def renew(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Make what was found what is expected."""
    for name, left in found.items():
        text = json.dumps(summarise(left), ensure_ascii=False, indent=1)
        file_of(name).write_text(text + "\n", encoding="utf-8")


def statistics_differ(
    want: Mapping[str, float], got: Mapping[str, float], rtol: float, atol: float
) -> list[str]:
    """A line for each statistic that is not what it was."""
    lines = [f"{key}: expected {want[key]:.6g}, found none" for key in want if key not in got]
    lines += [f"{key}: expected none, found {got[key]:.6g}" for key in got if key not in want]
    for key in want:
        if key not in got or (math.isnan(want[key]) and math.isnan(got[key])):
            continue
        if not abs(got[key] - want[key]) <= atol + rtol * abs(want[key]):
            relative = (got[key] - want[key]) / abs(want[key]) if want[key] else math.inf
            lines.append(f"{key}: expected {want[key]:.6g}, found {got[key]:.6g}, by {relative:+.2e} of it")
    return lines


def rows_differ(what: str, want: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """What is other about rows that were hashed: their number, the first of the shown rows that differ, or the hash."""
    if want == got:
        return []
    lines = [
        f"{what}: expected {want['rows']} rows of hash {want['hash']}, found {got['rows']} of {got['hash']}"
    ]
    for shown in (key for key in want if key not in ("rows", "hash")):
        pairs = zip(want[shown], got.get(shown, ()), strict=False)
        lines += [
            f"  {shown}: expected {a!r}\n  {' ' * len(shown)}     found {b!r}" for a, b in pairs if a != b
        ]
    if len(lines) == 1:
        lines.append("  none of the rows that are kept differs; the others do")
    return lines


def report_differs(want: Mapping[str, Mapping[str, Any]], got: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is other about the tables of the report, section by section."""
    lines = (
        []
        if [*want] == [*got]
        else [f"sections: expected {', '.join(want)}\n          found    {', '.join(got)}"]
    )
    for title in (title for title in want if title in got):
        lines += rows_differ(f"section `{title}`", want[title], got[title])
    return lines
