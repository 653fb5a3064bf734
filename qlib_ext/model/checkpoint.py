"""Checkpoints of a training: one safetensors file a run, replaced as a whole after every epoch."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from qlib_ext.checks import UserError
from qlib_ext.lock import BusyError, Lock, exclusive

logger = logging.getLogger(__name__)

FORMAT = 2  # 1 had no checksum and did not say whose it was
EPOCHS = ".epochs"  # suffix of the folder of kept epochs
LEFTOVER_SECONDS = 24 * 3600  # what a killed run left half written is removed after a day
_claims: dict[Path, Lock] = {}  # of this process


@dataclass
class TrainingState:
    """All that the next epoch depends on.

    Attributes
    ----------
    epoch
        Epochs finished.
    tensors
        Group (`network`, `best`, `optimizer`, `averaging`, `balancer`, `random`) -> name -> tensor.
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
    checkpoint. It holds a checksum of all that it says and the key of its configuration. Nothing is pickled.
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
        one that fell between training and the last record is taken up too, with nothing left to train. What is returned
        is claimed.

        Raises
        ------
        UserError
            If the newest file cannot be read, is damaged or belongs to another configuration; it names the file, and
            to delete it or to start afresh. Or if another process trains it at this moment.
        """
        self._tidy()
        for path in sorted(self.folder.glob("*.safetensors"), reverse=True):
            with claimed(path):
                state = load(path)
            if not (finished(state) and _mark(path).exists()):
                return path, state
            leave(path)
        return None

    def _tidy(self) -> None:
        for part in self.folder.glob("*.part"):
            try:
                if time.time() - part.stat().st_mtime > LEFTOVER_SECONDS:
                    part.unlink()
            except FileNotFoundError:  # another run was quicker
                continue
        for lock in self.folder.glob("*.lock"):
            # Of a run that was killed before its first checkpoint.
            if not lock.with_suffix(".safetensors").exists():
                with contextlib.suppress(BusyError), exclusive(lock):
                    pass


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Have this process alone go on with a checkpoint from here on; left again at an error, at `close` or at its death.

    Raises
    ------
    UserError
        If another process has claimed it, or its folder cannot be written.
    """
    held = _claims.get(path.absolute())
    if held is None or not held.held:
        lock = Lock(path.absolute().with_suffix(".lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.take()
        except BusyError as error:
            raise UserError(
                f"{error.holder} trains the checkpoint {path} at this moment, or makes the records of its run: wait for "
                f"its end, or stop it and start again with RESUME=1{error.hint}"
            ) from error
        except OSError as error:
            raise UserError(
                f"no checkpoint can be written to {path.parent} ({error}): make room or name another `checkpoint_dir`"
            ) from error
        _claims[path.absolute()] = lock
    try:
        yield
    except BaseException:
        leave(path)
        raise


def leave(path: Path) -> None:
    """Let other processes go on with a checkpoint."""
    lock = _claims.pop(path.absolute(), None)
    if lock is not None:
        lock.release()


@atexit.register
def _leave_all() -> None:
    for path in list(_claims):
        leave(path)


def close(path: Path) -> None:
    """Say that the run of this checkpoint came to its end, records and all."""
    _mark(path).touch()
    leave(path)


def reopen(path: Path) -> None:
    """Say that another run goes on with this checkpoint."""
    _mark(path).unlink(missing_ok=True)


def _mark(path: Path) -> Path:
    return path.with_suffix(".closed")


def save(path: Path, state: TrainingState, *, epoch_weights: Mapping[str, Tensor] | None = None) -> None:
    """Write `state` to `path`, whole or not at all; it is on the disk when this returns.

    Parameters
    ----------
    path, state
        Where, and what.
    epoch_weights
        What was judged after the epoch: written into a folder beside `path`, for `kept_epochs`, since the checkpoint
        itself holds the newest and the best alone. None keeps no epoch.

    Raises
    ------
    UserError
        If there is no room, or the place cannot be written; the checkpoint before stays as it was.
    """
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().clone().contiguous()
        for group, named in state.tensors.items()
        for name, tensor in named.items()
    }
    header = {
        "format": FORMAT,
        "configuration": path.parent.name,
        "epoch": state.epoch,
        "values": state.values,
    }
    text = json.dumps(header)
    beside = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if epoch_weights is not None:  # first, so that a resumed run finds every epoch before its own
            folder = path.with_suffix(EPOCHS)
            folder.mkdir(exist_ok=True)
            weights = {name: value.cpu().contiguous() for name, value in epoch_weights.items()}
            write_tensors(folder / f"{state.epoch - 1}.safetensors", weights)
        try:
            write_tensors(beside, tensors, {"state": text, "check": checksum(text, tensors)})
            _to_disk(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"the checkpoint of epoch {state.epoch - 1} cannot be written to {path.parent} ({error}): make room or name "
            "another `checkpoint_dir`; RESUME=1 goes on from the checkpoint before, which is whole"
        ) from error


def check_kept(path: Path, epochs: int) -> None:
    """Raise a UserError where the weights of one of the first epochs were not kept: it is not trained again."""
    folder = path.with_suffix(EPOCHS)
    for epoch in range(epochs):
        if not (folder / f"{epoch}.safetensors").is_file():
            raise UserError(
                f"`keep_epochs` needs the weights of every epoch, found none of epoch {epoch} in {folder}: the run that is "
                "taken up did not keep them; start afresh without RESUME=1, or leave `keep_epochs` out"
            )


def kept_epochs(path: Path, epochs: int) -> dict[str, Tensor]:
    """The weights that `save` kept of the first epochs, each as `<epoch>/<name>`."""
    folder = path.with_suffix(EPOCHS)
    return {
        f"{epoch}/{name}": value
        for epoch in range(epochs)
        for name, value in load_file(folder / f"{epoch}.safetensors").items()
    }


def by_epoch(weights: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """What `kept_epochs` put together, epoch by epoch."""
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in weights.items():
        epoch, _, name = key.partition("/")
        found.setdefault(int(epoch), {})[name] = value
    return [found[epoch] for epoch in sorted(found)]


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file; what the system refuses is an `OSError`, as with any other file."""
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Of a text and of every tensor: name, type, shape and bytes, wherever they lie."""
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load(path: Path) -> TrainingState:
    """Read what `save` wrote.

    Raises
    ------
    UserError
        If the file cannot be read, a bit of it is another than was written, or it lies in the folder of another
        configuration than its own.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            flat = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        header = json.loads(metadata["state"])
        version = header["format"]
        if version == FORMAT and metadata["check"] != checksum(metadata["state"], flat):
            raise ValueError("its checksum is another: it was damaged after it was written")
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"the checkpoint {path} cannot be read ({error}): delete it, or start afresh without RESUME"
        ) from error
    if version == 1:
        logger.warning("the checkpoint %s is of an older version and has no checksum", path)
    elif version != FORMAT:
        raise UserError(
            f"the checkpoint {path} has format {version}, expected {FORMAT}: start afresh without RESUME"
        )
    elif header["configuration"] != path.parent.name:
        raise UserError(
            f"the checkpoint {path} belongs to the configuration {header['configuration']}, not to that of its folder: "
            "move it back, or start afresh without RESUME"
        )
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, value in flat.items():
        group, _, name = key.partition("/")
        tensors.setdefault(group, {})[name] = value
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


def compare_threads(before: int | None, device: torch.device) -> None:
    """Warn where the number of threads is another than `before`, and could change the last bits of what follows."""
    now = torch.get_num_threads()
    strict = "STRICT" in os.environ.get("MKL_CBWR", "").upper()
    if device.type == "cpu" and before not in (None, now) and not strict:
        logger.warning(
            "this training was begun with %d threads and goes on with %d: sums may differ in their last bits from those of "
            "a run that was not interrupted; OMP_NUM_THREADS=%d goes on as before",
            before,
            now,
            before,
        )
