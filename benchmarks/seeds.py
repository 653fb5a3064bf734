"""Seeds side by side against one after the other: how many times faster.

python -m benchmarks.seeds --store DIR [--seeds 2] [--workers 2] [--epochs 3] [--model LSTM]

Each way trains the same seeds as an ensemble, in processes of their own, and ends with the same scores. Two cores that nobody
else uses can at best do it in half the time.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from qlib_ext.terminal import quiet_imports, say

ROOT = Path(__file__).parents[1]
WORKFLOWS = {"LSTM": "stl_csi300.yaml", "LightGBM": "lightgbm_csi300.yaml"}


def task_of(model: str, seeds: int, workers: int, epochs: int, hidden_size: int) -> dict[str, Any]:
    """The task of an ensemble of seeds, with nothing but its scores as record."""
    from qlib_ext.workflow.read import read_workflow

    variables = {"N_EPOCHS": str(epochs), "HIDDEN_SIZE": str(hidden_size), "DEVICE": "cpu"}
    task = copy.deepcopy(read_workflow(ROOT / "workflows" / WORKFLOWS[model], variables)["task"])
    kwargs = task["model"]["kwargs"]
    if "num_threads" in kwargs:
        kwargs["num_threads"] = max(1, (os.cpu_count() or 1) // workers)
    task["model"] = {
        "class": "qlib_ext.model.ensemble.ensemble.Ensemble",
        "kwargs": {"model": task["model"], "seeds": seeds, "workers": workers},
    }
    task["dataset"]["kwargs"]["segments"] = {
        "train": ["2012-01-01", "2014-12-31"],
        "valid": ["2015-01-01", "2015-12-31"],
        "test": ["2016-01-01", "2016-06-30"],
    }
    task["record"] = [record for record in task["record"] if record["class"].endswith("SignalRecord")]
    return task


def measure(
    store: Path, model: str, seeds: int, workers: int, epochs: int, hidden_size: int
) -> dict[str, Any]:
    """Seconds of both ways; the data are prepared before, and the first way does not pay for it alone."""
    with quiet_imports():
        from qlib_ext.workflow.scored import run_task
    found: dict[str, Any] = {"model": model, "seeds": seeds, "workers": workers, "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        run_task(task_of(model, 1, 1, 1, hidden_size), store, "cn", "warm")
        for name, side_by_side in (("one after the other", 1), ("side by side", workers)):
            found["load before " + name] = round(os.getloadavg()[0], 2)
            began = time.perf_counter()
            run_task(task_of(model, seeds, side_by_side, epochs, hidden_size), store, "cn", name)
            found[name] = round(time.perf_counter() - began, 1)
    found["times faster"] = round(found["one after the other"] / found["side by side"], 2)
    return found


def main() -> int:
    """Measure, and say it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--model", choices=[*WORKFLOWS], default="LSTM")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--hidden-size", type=int, default=64)
    given = vars(parser.parse_args())
    found = measure(given.pop("store").resolve(), **given)
    say(json.dumps(found, indent=1), lines=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
