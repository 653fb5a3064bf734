"""Whether a bundle's run, made again here, is the same: bit for bit, to within a tolerance, or first different where."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from qlib_ext.checks import UserError, brief, counted
from qlib_ext.market.store import QlibStore, StoreError
from qlib_ext.model.trainings.below import PREDICTIONS
from qlib_ext.records.signal import versions
from qlib_ext.tracking import git
from qlib_ext.verify.again import make_again
from qlib_ext.verify.bundle import ENVIRONMENT, ORDERS, file_digest
from qlib_ext.verify.content import KINDS, Difference, first_difference, read_content
from qlib_ext.verify.data_parts import data_parts, other_parts, side_parts
from qlib_ext.verify.opened import Bundle, open_bundle
from qlib_ext.verify.signing import check_signature, signature_of
from qlib_ext.verify.task import has_given_scores, task_of

TOLERANCE = 1e-4  # as `recommend` has it for scores of the same model on another device
# What only a training writes, and what is taken from the bundle where nothing is trained.
OF_TRAINING = ("training/", "model/", "soup/")
OF_GIVEN = ("ensemble/",)  # of scores that were combined: what is said of runs that the bundle does not hold
# First what a reader asks for, then what follows from it.
FIRST = ("data/", "signal/", "ranking/", "backtest/", "trades/")
THREADS = "Threads"
DECIDE_NOTHING = ("mlflow",)
KERNEL = re.compile(r"^(\w+)-.*?(-with-.*)?$")  # of `Linux-6.1.0-18-amd64-x86_64-with-glibc2.36`


@dataclass(frozen=True)
class Verdict:
    """What a verification found.

    Attributes
    ----------
    run, name
        Of the bundle.
    digest
        SHA-256 of the bundle.
    trained
        Whether it was trained again, or scored from the weights of the bundle.
    compared
        Artifact of the bundle -> hash of what it says there and of what was made here; the latter None where it was not made.
    not_compared
        Artifacts that this level does not make.
    differing
        Of those that differ, where first, in the order in which they follow from each other.
    environment
        What differs of the versions and the machine, in words.
    tolerance
        Within which numbers count as near where something of the environment differs.
    signed
        Whether a signature was checked.
    notes
        What else a reader should know.
    """

    run: str
    name: str
    digest: str
    trained: bool
    compared: Mapping[str, tuple[str, str | None]]
    not_compared: tuple[str, ...]
    differing: tuple[Difference, ...]
    environment: tuple[str, ...]
    tolerance: float
    signed: bool
    notes: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether everything that was made again is the same to the last bit."""
        return not self.differing

    @property
    def same(self) -> bool:
        """Whether it is, or is as near as another environment explains."""
        return self.exact or (bool(self.environment) and self.largest <= self.tolerance)

    @property
    def largest(self) -> float:
        """The largest difference, as `Difference` counts; 0 where there is none."""
        return max((each.largest for each in self.differing), default=0.0)

    @property
    def first(self) -> Difference | None:
        """The first difference, of what the others follow from."""
        return self.differing[0] if self.differing else None

    def sentence(self) -> str:
        """The verdict in words, which claims no more than was looked at."""
        made = "trained again from its seed" if self.trained else "made again from its stored weights"
        done = f"{counted(len(self.compared), 'table')} {made}"
        elsewhere = " although versions or machine differ" if self.environment else ""
        if self.exact:
            return f"same: {done}, all the same bit for bit{elsewhere}"
        some = f"{len(self.differing)} of {done}"
        if self.same:
            return (
                f"same to within {self.tolerance:g}, not bit for bit: {some} differ by at most {self.largest:.1e}, which other "
                "versions or another machine explain"
            )
        reason = ""
        if self.environment:
            reason = (
                "; versions or machine differ, which may be why: verify it where they are those of the run"
            )
        elif self.largest <= self.tolerance:
            reason = f"; by rounding only (at most {self.largest:.1e}), but on the same versions it must be the same to the last bit"
        return f"different: {some} differ{reason}"

    def document(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        first = self.first
        return {
            "verdict": "same" if self.exact else "near" if self.same else "different",
            "sentence": self.sentence(),
            "run": self.run,
            "name": self.name,
            "bundle": self.digest,
            "signed": self.signed,
            "trained": self.trained,
            "tolerance": self.tolerance,
            "largest": self.largest if math.isfinite(self.largest) else None,
            "environment": [*self.environment],
            "compared": {path: {"bundle": old, "here": new} for path, (old, new) in self.compared.items()},
            "not_compared": [*self.not_compared],
            "differing": [each.path for each in self.differing],
            "first": None
            if first is None
            else {name: getattr(first, name) for name in ("path", "where", "column", "expected", "found")},
            "notes": [*self.notes],
        }


def verify(
    path: Path,
    store: Path | None = None,
    *,
    train: bool = False,
    key: str | None = None,
    tolerance: float = TOLERANCE,
) -> Verdict:
    """Execute a bundle on this machine, and hold what comes against what it holds.

    Parameters
    ----------
    path
        The bundle.
    store
        The data; by default where they lay when the run was made.
    train
        Whether to train again, instead of taking the weights of the bundle.
    key
        A public key of minisign, that its signature must be of.
    tolerance
        As of `Verdict`.

    Raises
    ------
    UserError
        If it is refused or cannot be executed.
    """
    if key is not None:
        check_signature(path, key)
    with tempfile.TemporaryDirectory(prefix="qlib-ext-verify-") as name:
        folder = Path(name).resolve()
        bundle = open_bundle(path, folder / "bundle")
        data, notes = _same_data(bundle, store)
        environment, threads = other_environment(bundle)
        if key is None and signature_of(path).is_file():
            notes.append(
                f"{signature_of(path).name} lies beside it and was not checked: `--key PUBLIC` does so"
            )
        place = folder / "again"
        place.mkdir()
        made = _made(bundle, data, place, train, threads)
        train = train and not has_given_scores(task_of(bundle.folder(bundle.run)))
        compared, not_compared, differing = _compare(bundle, made, train)
        return Verdict(
            run=bundle.run,
            name=str(bundle.index["runs"][bundle.run].get("name", "")),
            digest=file_digest(path),
            trained=train,
            compared=compared,
            not_compared=tuple(not_compared),
            differing=tuple(differing),
            environment=tuple(environment),
            tolerance=tolerance,
            signed=key is not None,
            notes=tuple(notes),
        )


def _made(bundle: Bundle, store: QlibStore, place: Path, train: bool, threads: int | None) -> dict[str, Path]:
    """What is made again; whatever goes wrong with a configuration of others is told in a line."""
    try:
        return make_again(bundle, store, place, train=train, threads=threads)
    except UserError as error:
        raise UserError(f"the bundle cannot be executed: {error}") from error
    except ImportError as error:
        raise UserError(
            f"the bundle cannot be executed, since {error.name or error} is not installed: `pip install -c constraints.txt` with "
            f"the file of that name in {bundle.path}"
        ) from error
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        said = (str(error).strip() or "no more is known").splitlines()[0][:300]
        raise UserError(f"the bundle cannot be executed ({type(error).__name__}: {said})") from error


def _same_data(bundle: Bundle, given: Path | None) -> tuple[QlibStore, list[str]]:
    """The store, whose content must be that of the run."""
    wanted = str(bundle.index["data"]["fingerprint"])
    place = given or Path(str(bundle.workflow()["qlib_init"].get("provider_uri") or "."))
    try:
        store = QlibStore(place)
    except StoreError as error:
        told = "" if given else ", where the data of the run lay: name yours by `--store DIR`"
        raise UserError(f"the bundle cannot be executed: {error}{told}") from error
    parts = dict(bundle.index["data"]["parts"])
    if store.fingerprint() != wanted:
        said = other_parts(parts, data_parts(store)) if parts else []
        raise UserError(
            f"the bundle cannot be executed on the store {store.root}: its fingerprint is {store.fingerprint()}, that of the "
            f"run's data {brief(wanted)}{': ' if said else ''}{'; '.join(said)}. Name another by `--store DIR`"
        )
    if not parts:
        return store, ["the bundle does not know the side data of its run, so they were not looked at"]
    said = other_parts(_side(parts), side_parts(store.root))
    if said:
        raise UserError(
            f"the bundle cannot be executed on the store {store.root}: its bars are those of the run, and {'; '.join(said)}"
        )
    return store, []


def _side(parts: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in parts.items() if name.startswith("side data ")}


def other_environment(bundle: Bundle) -> tuple[list[str], int | None]:
    """What differs here from where the run was made, in words; and the threads that it had, which can be had here too."""
    told, here = ({**known, **_code(tag)} for known, tag in _places(bundle))
    threads = told.pop(THREADS, None)
    said = [
        f"{name} is {here.get(name, 'not known')}, and was {told.get(name, 'not noted')}"
        for name in dict.fromkeys([*told, *here])
        if name not in (THREADS, *DECIDE_NOTHING) and _deciding(told, name) != _deciding(here, name)
    ]
    if not (isinstance(threads, str) and threads.isdecimal() and 0 < int(threads) <= 1024):
        return [*said, "the threads of the run are not known"], None
    return said, int(threads)


def _places(bundle: Bundle) -> tuple[tuple[dict[str, str], str | None], tuple[dict[str, str], str | None]]:
    """Versions and commit, where the run was made and here; the commit only where both are known."""
    then, now = bundle.tags(bundle.run).get("git_commit"), git.commit()
    told = dict(bundle.index["environment"]), then if now else None
    return told, (versions(), now if then else None)


def _code(commit: str | None) -> dict[str, str]:
    return {} if commit is None else {"the commit of qlib_ext": commit}


def _deciding(known: Mapping[str, str], name: str) -> str | None:
    """What may decide a digit: of the system not its kernel."""
    said = known.get(name)
    return KERNEL.sub(r"\1\2", said) if name == "System" and isinstance(said, str) else said


def _compare(
    bundle: Bundle, made: Mapping[str, Path], train: bool
) -> tuple[dict[str, tuple[str, str | None]], list[str], list[Difference]]:
    compared: dict[str, tuple[str, str | None]] = {}
    not_compared: list[str] = []
    differing: list[Difference] = []
    several = len(bundle.index["runs"]) > 1
    for run_id in sorted(
        bundle.index["runs"], key=lambda each: each == bundle.run
    ):  # folds come before what they make
        prefix = f"{run_id[:8]}/" if several and run_id != bundle.run else ""
        left_out = (
            OF_GIVEN if has_given_scores(task_of(bundle.folder(run_id))) else () if train else OF_TRAINING
        )
        for path in _in_order(bundle.artifacts(run_id)):
            if path.startswith(left_out):
                not_compared.append(prefix + path)
                continue
            expected = str(bundle.artifacts(run_id)[path]["content"])
            file = made[run_id] / path if run_id in made else None
            if file is None or not file.is_file():
                compared[prefix + path] = expected, None
                differing.append(Difference(prefix + path, "the whole table", "", "there", "not made"))
                continue
            found = read_content(file, path)
            digest = found.digest()
            compared[prefix + path] = expected, digest
            if digest != expected:
                old = read_content(bundle.folder(run_id) / path, path)
                differing.append(
                    first_difference(prefix + path, old, found) or _unseen(prefix + path, expected, digest)
                )
    return compared, not_compared, differing


def _unseen(path: str, expected: str, found: str) -> Difference:
    """Two contents of one kind whose hashes alone differ."""
    return Difference(path, "the hash of its content", "", expected, found)


def _in_order(paths: Iterable[str]) -> list[str]:
    """Artifacts that are compared, those first of which the others are made."""
    kept = [path for path in paths if PurePosixPath(path).suffix in KINDS and not _told_apart(path)]
    order = [*OF_TRAINING, *FIRST]

    def rank(path: str) -> tuple[int, bool, str]:
        place = next((k for k, start in enumerate(order) if path.startswith(start)), len(order))
        return place, path not in (PREDICTIONS, ORDERS), path

    return sorted(kept, key=rank)


def _told_apart(path: str) -> bool:
    """The versions, which are told beside the verdict, and the run's own checksums of bytes."""
    return path in (ENVIRONMENT, "checksums.txt")
