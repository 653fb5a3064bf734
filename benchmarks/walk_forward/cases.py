"""What is compared: workflows that walk forward, and one model that was trained once."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.trainings.runs import only_what_is_read
from qlib_ext.workflow.read import read_workflow

ROOT = Path(__file__).parents[2]
PLAN = {"train": "4y", "valid": "6m", "test": "6m", "resume": 1}  # bars begin in 2010
ONCE = {  # the segments of the first fold, and all the days after them
    "train": ["2010-07-01", "2014-06-30"],
    "valid": ["2014-07-01", "2014-12-31"],
}
NETWORK = {
    "HIDDEN_SIZE": "32",
    "N_EPOCHS": "4",
    "LEARNING_RATE": "0.001",
    "PRECISION": "bfloat16",
    "DEVICE": "auto",
}


@dataclass(frozen=True)
class Kind:
    """A workflow and how it is run.

    Attributes
    ----------
    workflow
        Its file.
    variables
        Of its template.
    warm_start
        Whether each fold begins from the weights of the one before.
    once
        Whether it is trained once, on the days of the first fold.
    """

    workflow: str
    variables: Mapping[str, str]
    warm_start: bool = False
    once: bool = False


KINDS: Mapping[str, Kind] = {
    "LightGBM Alpha360": Kind("lightgbm_csi300.yaml", {}),
    "LightGBM Alpha360, once": Kind("lightgbm_csi300.yaml", {}, once=True),
    "LightGBM Alpha158": Kind("lightgbm_alpha158_csi300.yaml", {}),
    "LSTM": Kind("stl_csi300.yaml", NETWORK),
    "LSTM, warm start": Kind("stl_csi300.yaml", NETWORK, warm_start=True),
    "LSTM, once": Kind("stl_csi300.yaml", NETWORK, once=True),
}


@dataclass(frozen=True)
class Case:
    """A kind and a seed; `start` and `end` bound the days that are scored."""

    kind: str
    seed: int
    start: str
    end: str

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.kind} seed {self.seed}"

    def task(self) -> dict[str, Any]:
        """The task of its workflow."""
        kind = KINDS[self.kind]
        config = read_workflow(ROOT / "workflows" / kind.workflow, {**kind.variables, "SEED": str(self.seed)})
        task = copy.deepcopy(config["task"])
        kwargs = task["dataset"]["kwargs"]
        if kind.once:
            kwargs["segments"] = {**ONCE, "test": [self.start, self.end]}
        else:
            plan = {**PLAN, "start": self.start, "end": self.end, "warm_start": kind.warm_start}
            kwargs["segments"] = {"walk_forward": plan}
        return only_what_is_read(task)


def cases(kinds: Sequence[str], seeds: Sequence[int], start: str, end: str) -> list[Case]:
    """Each kind with each seed."""
    return [Case(kind, seed, start, end) for seed in seeds for kind in kinds]
