"""Checkpoints of a training: one safetensors file a run, replaced as a whole after every epoch."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qlib_ext.checks import UserError

FORMAT = 1


@dataclass
class TrainingState:
    """All that the next epoch depends on.

    Attributes
    ----------
    epoch
        Epochs finished.
    tensors
        Group (`network`, `best`, `optimizer`, `balancer`, `random`) -> name -> tensor.
    values
        What JSON holds: history, best epoch and score, the balancer's values.
    """

    epoch: int
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints of one configuration on one set of data.

    Parameters
    ----------
    root
        Folder of all checkpoints.
    identity
        Everything that decides what training does, ready for JSON. Runs share checkpoints only where this is equal.

    Notes
    -----
    A file is written beside its place and moved there, so a run that is killed at any point leaves its last whole
    checkpoint. Nothing is pickled.
    """

    def __init__(self, root: str | Path, identity: Mapping[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True, default=str)
        self.key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self.folder = Path(root).expanduser() / self.key

    def new_path(self) -> Path:
        """A path for a fresh run, later than all others by name."""
        return self.folder / f"{time.time_ns():020d}.safetensors"

    def newest_unfinished(
        self, finished: Callable[[TrainingState], bool]
    ) -> tuple[Path, TrainingState] | None:
        """The newest checkpoint of a run that did not come to its end, or None.

        A run has come to its end when its training is `finished` for the run that asks and its checkpoint is closed:
        one that fell between training and the last record is taken up too, with nothing left to train.

        Raises
        ------
        UserError
            If the newest file cannot be read; it names the file, and to delete it or to start afresh.
        """
        for path in sorted(self.folder.glob("*.safetensors"), reverse=True):
            state = load(path)
            if not (finished(state) and _mark(path).exists()):
                return path, state
        return None


def close(path: Path) -> None:
    """Say that the run of this checkpoint came to its end, records and all."""
    _mark(path).touch()


def reopen(path: Path) -> None:
    """Say that another run goes on with this checkpoint."""
    _mark(path).unlink(missing_ok=True)


def _mark(path: Path) -> Path:
    return path.with_suffix(".closed")


def save(path: Path, state: TrainingState) -> None:
    """Write `state` to `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().clone().contiguous()
        for group, named in state.tensors.items()
        for name, tensor in named.items()
    }
    header = {"format": FORMAT, "epoch": state.epoch, "values": state.values}
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        save_file(tensors, beside, metadata={"state": json.dumps(header)})
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: Path) -> TrainingState:
    """Read what `save` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["state"])
            tensors: dict[str, dict[str, Tensor]] = {}
            for key in file.keys():  # noqa: SIM118 - not a mapping
                group, _, name = key.partition("/")
                tensors.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, json.JSONDecodeError, OSError) as error:
        raise UserError(
            f"the checkpoint {path} cannot be read ({error}): delete it, or start afresh without RESUME"
        ) from error
    if header.get("format") != FORMAT:
        raise UserError(
            f"the checkpoint {path} has format {header.get('format')}, expected {FORMAT}: start afresh without RESUME"
        )
    return TrainingState(header["epoch"], tensors, header["values"])


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's random generators."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put torch's random generators where `random_state` found them."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
