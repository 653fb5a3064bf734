"""What common leaks are worth in RankIC: the same model on the same features, with a leak and without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.grid.plan import merged
from benchmarks.trainings.runs import only_what_is_read
from qlib_ext.market.store import QlibStore
from qlib_ext.workflow.read import read_workflow

WORKFLOW = Path(__file__).parents[2] / "workflows" / "lightgbm_alpha158_csi300.yaml"
NONE = "no leak"
# What is changed of the kwargs of the dataset.
LEAKS: Mapping[str, Mapping[str, Any]] = {
    NONE: {},
    "segments not purged": {"purge": False},
    "statistics of all days": {
        "handler": {"kwargs": {"fit_start_time": "2010-01-01", "fit_end_time": "2020-12-31"}}
    },
}
MEMBERS = "members of the last day in all years"
UNIVERSE = "csi300"


@dataclass(frozen=True)
class Case:
    """A leak and a seed."""

    leak: str
    seed: int

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.leak} seed {self.seed}"

    def task(self) -> dict[str, Any]:
        """The workflow's, with the leak."""
        task: dict[str, Any] = read_workflow(WORKFLOW, {"SEED": str(self.seed)})["task"]
        task["dataset"]["kwargs"] = merged(task["dataset"]["kwargs"], LEAKS.get(self.leak, {}))
        return only_what_is_read(task)


def with_survivors(store: QlibStore, root: Path) -> Path:
    """A store whose universe has, on all days, who is a member on the last one: links to the same bars."""
    root.mkdir(parents=True)
    for place in store.root.resolve().iterdir():
        if place.name != "instruments":
            (root / place.name).symlink_to(place)
    (root / "instruments").mkdir()
    for file in (store.root / "instruments").iterdir():
        (root / "instruments" / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    spells = store.membership(UNIVERSE)
    last = store.calendar[-1]
    members = sorted(spells.loc[spells["end"] >= spells["end"].max(), "instrument"])
    lines = [f"{code}\t{store.calendar[0]:%Y-%m-%d}\t{last:%Y-%m-%d}" for code in members]
    (root / "instruments" / f"{UNIVERSE}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root
