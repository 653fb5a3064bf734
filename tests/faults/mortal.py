"""Runs of one workflow that end by a signal at a named moment; a program of its own, started by the tests beside it.

    python mortal.py PLAN

PLAN is a JSON file: `workflow`, the rendered YAML, with an empty database of MLflow's beside it; `straight`, a folder for
a run that nothing disturbs; `pieces`, a folder for runs that do not come to their end and the one that does; `seed` and
`kills`, how many moments of the straight run are drawn; `interrupts`, how many of these are Ctrl-C and not kill -9. What
happened goes to `PLAN.lives.json`.

Every run is a fork of this process, so that what takes long, the imports, is done once. A moment is a line that the
run's own code passes, counted and never timed: before each step of the training, around each checkpoint (one of them
with half the file written), before each file of the run is put in its place, before the run is closed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.backends.backend_agg  # noqa: F401 - imported once for all runs, like those below
import mlflow.store.artifact.local_artifact_repo as local
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import numpy as np
import qlib.cli.run
import qlib.contrib.strategy
import torch._dynamo  # noqa: F401

from qlib_ext.model import checkpoint
from qlib_ext.model.evaluator import Evaluator
from qlib_ext.model.trainer import Trainer

KINDS = ("step", "measuring", "checkpoint", "file", "end")


class Moments:
    """Counts the moments of a run, and ends it at one of them."""

    def __init__(self, log: Path, die_at: str | None, how: signal.Signals) -> None:
        self.log = log
        self.die_at = die_at
        self.how = how
        self.epoch = 0
        self.files: dict[str, int] = {}

    def pass_(self, moment: str) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{moment}\n")
        if moment == self.die_at:
            os.kill(os.getpid(), self.how)

    def watch(self) -> None:
        """Have the code of the run tell of itself."""
        step, measure = Trainer._step, Evaluator.losses_and_scores
        save, save_file, close = checkpoint.save, checkpoint.save_file, checkpoint.close
        publish = local.LocalArtifactRepository._publish_staged_artifact

        def stepping(trainer: Trainer, train: Any, position: int) -> Any:
            self.epoch = trainer.epoch
            self.pass_(f"step: epoch {trainer.epoch}, day {position}")
            return step(trainer, train, position)

        def measuring(evaluator: Evaluator, *arguments: Any) -> Any:
            self.pass_(f"measuring: epoch {self.epoch}")
            return measure(evaluator, *arguments)

        def saving(path: Path, state: Any, **more: Any) -> None:
            self.pass_(f"checkpoint: epoch {self.epoch}, before it")
            save(path, state, **more)
            self.pass_(f"checkpoint: epoch {self.epoch}, after it")

        def writing(tensors: Any, path: Path, metadata: Any) -> None:
            save_file(tensors, path, metadata=metadata)
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            self.pass_(f"checkpoint: epoch {self.epoch}, half of it")
            path.write_bytes(whole)
            self.pass_(f"checkpoint: epoch {self.epoch}, before it is moved")

        def publishing(store: Any, staged: str, target: str, finalize: Callable[[str], Any]) -> None:
            name = Path(target).relative_to(store.artifact_dir).as_posix()
            self.files[name] = self.files.get(name, 0) + 1
            self.pass_(f"file: {name}, time {self.files[name]}")
            publish(store, staged, target, finalize)

        def closing(path: Path) -> None:
            self.pass_("end: before the run is closed")
            close(path)

        Trainer._step, Evaluator.losses_and_scores = stepping, measuring  # type: ignore[method-assign]
        checkpoint.save, checkpoint.save_file, checkpoint.close = saving, writing, closing
        local.LocalArtifactRepository._publish_staged_artifact = publishing


def live(
    folder: Path, workflow: Path, die_at: str | None, how: signal.Signals, resume: bool
) -> dict[str, Any]:
    """One run in a process of its own; how that process ended, and the moments it passed."""
    if not folder.is_dir():
        folder.mkdir()
        shutil.copy(workflow.parent / "mlflow.db", folder)
    number = len(list(folder.glob("life-*.txt")))
    log = folder / f"life-{number:02d}.txt"
    log.touch()
    process = os.fork()
    if process == 0:
        os.chdir(folder)
        words = os.open(folder / f"output-{number:02d}.txt", os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(words, stream)
        text = workflow.read_text(encoding="utf-8").replace("resume: 0", f"resume: {int(resume)}")
        (folder / "workflow.yaml").write_text(text, encoding="utf-8")
        Moments(log, die_at, how).watch()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        sys.argv = ["qrun", "workflow.yaml"]
        qlib.cli.run.workflow("workflow.yaml")
        sys.exit(0)
    _, status = os.waitpid(process, 0)
    return {
        "died_at": die_at,
        "resume": resume,
        "exit": os.waitstatus_to_exitcode(status),
        "moments": log.read_text(encoding="utf-8").splitlines(),
        "output": (folder / f"output-{number:02d}.txt").read_text(encoding="utf-8", errors="replace"),
    }


def drawn(moments: list[str], kills: int, seed: int) -> list[str]:
    """Some of the moments, of every kind in turn, in their order."""
    draw = random.Random(seed)
    by_kind = {kind: [m for m in dict.fromkeys(moments) if m.startswith(f"{kind}:")] for kind in KINDS}
    for kind in by_kind.values():
        draw.shuffle(kind)
    chosen: set[str] = set()
    while len(chosen) < min(kills, len(moments)):
        for kind in KINDS:
            # steps and checkpoints are what a run has most of; its files take the longest to come to
            for _ in range({"step": 4, "checkpoint": 3}.get(kind, 1)):
                if by_kind[kind] and len(chosen) < kills:
                    chosen.add(by_kind[kind].pop())
    return [moment for moment in dict.fromkeys(moments) if moment in chosen]


def main(plan: Path) -> None:
    given = json.loads(plan.read_text(encoding="utf-8"))
    workflow, straight, pieces = (Path(given[name]) for name in ("workflow", "straight", "pieces"))
    lives = [live(straight, workflow, None, signal.SIGKILL, resume=False)]
    points = drawn(lives[0]["moments"], given["kills"], given["seed"])
    interrupted = set(np.random.default_rng(given["seed"]).choice(points, given["interrupts"], replace=False))
    for k, point in enumerate([*points, None]):
        how = signal.SIGINT if point in interrupted else signal.SIGKILL
        lives.append(live(pieces, workflow, point, how, resume=k > 0))
    plan.with_suffix(".lives.json").write_text(json.dumps(lives, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
