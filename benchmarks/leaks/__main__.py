"""Hold pipelines of Qlib's examples before the look-ahead audit, and measure what common leaks are worth.

python -m benchmarks.leaks audit --store DIR [--cases "Alpha158, linear"] [--dates 24] [--refits 2]
python -m benchmarks.leaks worth --store DIR [--seeds 0 1 2]
python -m benchmarks.leaks report

A verdict that is there, and a run that is kept, are not made again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path

from benchmarks.leaks.cases import read_cases
from qlib_ext.checks import UserError
from qlib_ext.terminal import quiet_imports

OUT = Path("reports/leaks")
EXPERIMENT = "leaks"


def main() -> int:
    """Look, measure, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("audit", "worth", "report"))
    parser.add_argument("--store", type=Path)
    parser.add_argument(
        "--cases", nargs="+", choices=[*read_cases()], default=[*read_cases()], metavar="CASE"
    )
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--refits", type=int, default=2)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("leaks_runs"))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.what != "report" and given.store is None:
        parser.error(f"`{given.what}` needs --store")
    try:
        if given.what == "audit":
            _audit(given)
        elif given.what == "worth":
            _worth(given)
        else:
            from benchmarks.leaks.report import write

            print(write(given.out))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _audit(given: argparse.Namespace) -> None:
    os.environ["QLIB_EXT_PACKAGES"] = "benchmarks"  # cases may name benchmarks.leaks.pipelines
    with quiet_imports():
        from benchmarks.trainings.runs import place
        from qlib_ext.lookahead.audit import audit
        from qlib_ext.lookahead.provider import start
    verdicts = given.out / "verdicts"
    verdicts.mkdir(parents=True, exist_ok=True)
    start({"provider_uri": str(given.store.resolve()), "region": "cn", "kernels": 1})
    for name in given.cases:
        file = place(verdicts, name).with_suffix(".json")
        if file.is_file():
            continue
        began = time.process_time()
        with contextlib.redirect_stdout(
            io.StringIO()
        ):  # what Qlib's models say while they are trained for a look
            found = audit(read_cases()[name].task, dates=given.dates, refits=given.refits)
        said = {"case": name, **found.to_json(), "processor_seconds": round(time.process_time() - began)}
        said["store"] = given.store.name
        file.write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(
            f"{name}: {len(found.findings)} alarms, {said['processor_seconds']} s of processor time",
            flush=True,
        )


def _worth(given: argparse.Namespace) -> None:
    store, runs = given.store.resolve(), (given.out / "runs").resolve()
    with quiet_imports():
        from benchmarks.leaks.worth import LEAKS, MEMBERS, Case, with_survivors
        from benchmarks.trainings.runs import run_case, workplace
        from qlib_ext.market.store import QlibStore
    client = workplace(given.work)
    survivors = Path("survivors").resolve()
    if not survivors.exists():
        with_survivors(QlibStore(store), survivors)
    for seed in given.seeds:
        for leak in (*LEAKS, MEMBERS):
            run_case(Case(leak, seed), survivors if leak == MEMBERS else store, client, runs, EXPERIMENT)


if __name__ == "__main__":
    sys.exit(main())
