"""Plants faults in a copy of the project, one at a time, and counts how many its tests notice.

    python -m benchmarks.mutation --tree ../mutated --family losses --size 40 --out mutants.csv

`--tree` is a clone of the project (`git clone . ../mutated`): its files are changed and put back, so it must not be the
one that is worked on. The mutants are cosmic-ray's (`pip install cosmic-ray`); a seeded sample of them is tried against
the test files that the module answers to (`families.py`), until the first failure. Each mutant is a line of the file:
killed (a test failed), timeout (killed too: it no longer ends), or survived. A run that is taken up again leaves out
what is there; `--again survived` tries those that survived once more, after the tests were mended.

A mutant's tests run in a process forked from one that has imported torch, Qlib and pandas, but nothing of the project:
that start is most of what a small test file takes.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.mutation.families import FOLDERS, answers
from benchmarks.mutation.mutants import Mutant, all_mutants, sample
from benchmarks.mutation.score import wilson

FIELDS = ("family", "module", "line", "column", "operator", "occurrence", "outcome", "seconds")


def run_tests(root: Path, files: list[str], seconds: float) -> str:
    """Run test files in a fork of this process: what became of it.

    Returns
    -------
    str
        `survived` if all passed, `killed` if not, `timeout` if they took longer than `seconds`.
    """
    child = os.fork()
    if child == 0:
        os.setsid()  # what the tests start goes with them at the end of the time
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.chdir(root)
        sys.path.insert(0, str(root))
        for name in [name for name in sys.modules if name.split(".")[0] in {"benchmarks", "qlib_ext"}]:
            del sys.modules[name]  # the tests must see those of the tree
        code = 99
        try:
            import pytest

            code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files]))
        finally:
            os._exit(code)
    begun = time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        if time.monotonic() - begun > seconds:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout"
        time.sleep(0.05)


def try_mutant(root: Path, mutant: Mutant, files: list[str], seconds: float) -> str:
    """Plant the fault, run the tests, put the module back."""
    path = root / mutant.module
    before = path.read_text(encoding="utf-8")
    path.write_text(mutant.source(root), encoding="utf-8")
    try:
        return run_tests(root, files, seconds)
    finally:
        path.write_text(before, encoding="utf-8")


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _write(file: Path, rows: list[dict[str, str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in FIELDS[1:6])


def show(root: Path, rows: list[dict[str, str]]) -> None:
    """Print a line of the table for each family, as docs/mutation.md has it."""
    print("| family | mutants | tried | noticed | score | 95 % interval |\n|---|---|---|---|---|---|")
    for family in FOLDERS:
        outcomes = [row["outcome"] for row in rows if row["family"] == family]
        if outcomes:
            hits = sum(outcome != "survived" for outcome in outcomes)
            low, high = wilson(hits, len(outcomes))
            print(
                f"| {family} | {len(all_mutants(root, family)):,} | {len(outcomes)} | {hits} "
                f"| {hits / len(outcomes):.0%} | {low:.0%} to {high:.0%} |"
            )


def main() -> int:
    """Try what is left of the sample, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", type=Path, required=True, help="a clone of the project, to be changed")
    parser.add_argument("--family", choices=FOLDERS, action="append", help="again for more; without it, all")
    parser.add_argument("--module", action="append", help="of the sample, only modules of this file name")
    parser.add_argument("--size", type=int, default=40, help="mutants of a family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=180, help="seconds that a mutant's tests may take")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after so long")
    parser.add_argument("--again", choices=["survived"], help="try these once more")
    parser.add_argument("--table", action="store_true", help="try none, print the table")
    parser.add_argument("--out", type=Path, default=Path("mutants.csv"))
    given = parser.parse_args()
    root = given.tree.resolve()
    if root == Path.cwd():
        parser.error("--tree must be a clone, found the folder that is worked in")

    def wanted(family: str, module: str) -> bool:
        return family in (given.family or FOLDERS) and (not given.module or Path(module).name in given.module)

    rows = _read(given.out)
    if given.table:
        show(root, rows)
        return 0
    if given.again:
        rows = [
            row for row in rows if row["outcome"] != given.again or not wanted(row["family"], row["module"])
        ]
    done = {_key(row) for row in rows}

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A mutant of the same length, written within a second, must not be taken for the one before.
    sys.dont_write_bytecode = True
    import hypothesis  # noqa: F401
    import pandas as pd  # noqa: F401
    import qlib.backtest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401

    gc.freeze()
    begun, sound = time.monotonic(), set()
    for family in given.family or FOLDERS:
        for mutant in sample(root, all_mutants(root, family), given.size, given.seed):
            row = {"family": family} | {name: str(getattr(mutant, name)) for name in FIELDS[1:6]}
            if _key(row) in done or not wanted(family, mutant.module):
                continue
            if time.monotonic() - begun > given.seconds:
                show(root, rows)
                return 0
            files = answers(root, Path(mutant.module))
            if mutant.module not in sound:
                found = run_tests(root, files, given.timeout)
                if found != "survived":
                    print(f"{mutant.module}: {', '.join(files)} do not pass without a mutant ({found})")
                    return 1
                sound.add(mutant.module)
            started = time.monotonic()
            row["outcome"] = try_mutant(root, mutant, files, given.timeout)
            row["seconds"] = f"{time.monotonic() - started:.1f}"
            print(*row.values(), flush=True)
            rows.append(row)
            _write(given.out, rows)
    show(root, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
