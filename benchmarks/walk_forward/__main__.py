"""Walk forward over 2015 to 2020 with two kinds of model, and report what it was worth and what it cost.

python -m benchmarks.walk_forward run --store DIR --kinds "LightGBM Alpha360" LSTM --seeds 0
python -m benchmarks.walk_forward report

Killed at any point, the same command goes on: what is kept is not run again, and folds that are finished are not trained again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.walk_forward.cases import KINDS, cases
from benchmarks.walk_forward.report import write
from qlib_ext.checks import UserError
from qlib_ext.terminal import quiet_imports

EXPERIMENT = "walk_forward"
RUNS, OUT = Path("reports/walk_forward/runs"), Path("reports/walk_forward")


def main() -> int:
    """Run the cases, or write the report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--store", type=Path)
    parser.add_argument("--kinds", nargs="+", default=[*KINDS], choices=[*KINDS], metavar="KIND")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--start", default="2015-01-01")
    parser.add_argument("--end", default="2020-12-31")
    parser.add_argument(
        "--work", type=Path, default=Path("walk_forward_runs"), help="MLflow, checkpoints, cache"
    )
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.what == "report":
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
    store, runs = given.store.resolve(), given.runs.resolve()
    with quiet_imports():
        from benchmarks.trainings.runs import run_case, run_ensemble, workplace
    client = workplace(given.work)
    for case in cases(given.kinds, given.seeds, given.start, given.end):
        run_case(case, store, client, runs, EXPERIMENT)
    lstm = [f"LSTM seed {seed}" for seed in given.seeds]
    if len(lstm) > 1:
        run_ensemble("Ensemble LSTM", lstm, store, client, runs, EXPERIMENT)
    both = ["LightGBM Alpha360 seed 0", "LSTM seed 0"]
    run_ensemble("Ensemble both", both, store, client, runs, EXPERIMENT)


if __name__ == "__main__":
    sys.exit(main())
