"""Run the leaderboard on CSI300, and report what is kept of it.

python -m benchmarks.leaderboard run --store DIR [--rows "LightGBM, Alpha158" "STL, Alpha360"] [--seeds 0 1 2]
python -m benchmarks.leaderboard choose --store DIR [--rows ...] [--seeds ...]
python -m benchmarks.leaderboard report

`choose` runs the candidates of the house's recommendation on the years before the test.

Killed at any point, the same command goes on; what is kept below reports/leaderboard is not run again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.leaderboard.rows import CANDIDATES, ROWS, SEEDS, cases, ensembles, read_rows
from qlib_ext.checks import UserError
from qlib_ext.terminal import quiet_imports

EXPERIMENT = "leaderboard"
OUT = Path("reports/leaderboard")
FILES = {"run": ROWS, "choose": CANDIDATES}
FOLDERS = {"run": "runs", "choose": "choice"}  # of what is kept


def main() -> int:
    """Run the rows, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "choose", "report"))
    parser.add_argument("--store", type=Path)
    parser.add_argument(
        "--rows", nargs="+", help="names of rows.yaml or candidates.yaml; all of them by default"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(SEEDS)])
    parser.add_argument("--work", type=Path, default=Path("leaderboard_runs"))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.what == "report":
        from benchmarks.leaderboard.report import write

        print(write(given.out))
        return 0
    if given.store is None:
        parser.error(f"`{given.what}` needs --store")
    try:
        _run(given)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace) -> None:
    rows = read_rows(FILES[given.what])
    todo = cases(rows, given.rows or [*rows], given.seeds)
    store, runs = given.store.resolve(), (given.out / FOLDERS[given.what]).resolve()
    with quiet_imports():
        from benchmarks.trainings.runs import run_case, run_ensemble, workplace
    client = workplace(given.work)
    for case in todo:
        print(case.name, flush=True)
        run_case(case, store, client, runs, EXPERIMENT, case.row.scored_from)
    for name, row, members in ensembles(rows, given.seeds):
        run_ensemble(name, members, store, client, runs, EXPERIMENT, row.topk, row.n_drop)


if __name__ == "__main__":
    sys.exit(main())
