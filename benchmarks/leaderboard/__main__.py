"""Run the leaderboard on CSI300, and report what is kept of it.

python -m benchmarks.leaderboard run --store DIR [--rows "LightGBM, Alpha158" "STL, Alpha360"] [--seeds 0 1 2]
python -m benchmarks.leaderboard report

Killed at any point, the same command goes on; what is kept under reports/leaderboard/runs is not run again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.leaderboard.rows import SEEDS, cases, read_rows
from qlib_ext.checks import UserError
from qlib_ext.terminal import quiet_imports

EXPERIMENT = "leaderboard"
OUT = Path("reports/leaderboard")
# Members of ensembles of several kinds, a seed each.
TOGETHER = {
    "Ensemble of LightGBM and STL": ("LightGBM, Alpha158", "STL, Alpha360"),
    "Ensemble of LightGBM and MiM-StocR": ("LightGBM, Alpha158", "MiM-StocR, Alpha158"),
}


def main() -> int:
    """Run the rows, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--store", type=Path)
    parser.add_argument("--rows", nargs="+", help="names of rows.yaml; all of them by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[*range(SEEDS)])
    parser.add_argument("--work", type=Path, default=Path("leaderboard_runs"))
    parser.add_argument("--runs", type=Path, default=OUT / "runs")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.what == "report":
        from benchmarks.leaderboard.report import write

        print(write(given.runs, given.out))
        return 0
    if given.store is None:
        parser.error("`run` needs --store")
    try:
        _run(given)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(given: argparse.Namespace) -> None:
    rows = read_rows()
    todo = cases(rows, given.rows or [*rows], given.seeds)
    store, runs = given.store.resolve(), given.runs.resolve()
    with quiet_imports():
        from benchmarks.trainings.runs import run_case, run_ensemble, workplace
    client = workplace(given.work)
    for case in todo:
        print(case.name, flush=True)
        run_case(case, store, client, runs, EXPERIMENT)
    for name, kinds in TOGETHER.items():
        members = [f"{kind} seed {seed}" for kind in kinds for seed in given.seeds if seed < rows[kind].seeds]
        run_ensemble(name, members, store, client, runs, EXPERIMENT)


if __name__ == "__main__":
    sys.exit(main())
