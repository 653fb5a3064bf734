"""A finished run and the runs below it written as one file: what it was set to, read, learned and found, each by its hash."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

import qlib_ext
from qlib_ext.checks import UserError
from qlib_ext.files import load_yaml
from qlib_ext.market.store import QlibStore, StoreError
from qlib_ext.model.trainings.below import PREDICTIONS
from qlib_ext.records.makers import makers
from qlib_ext.tracking.artifacts import RunArtifacts
from qlib_ext.tracking.checksums import MANIFEST, checksum
from qlib_ext.verify.content import KINDS, read_content
from qlib_ext.verify.data_parts import data_parts
from qlib_ext.verify.task import CONFIG, below
from qlib_ext.workflow.run import MANAGER

FORMAT = 1
INDEX, WORKFLOW, CONSTRAINTS, FOLDER = "bundle.json", "workflow.yaml", "constraints.txt", "runs"
SUMMARY, ENVIRONMENT = "data/summary.json", "environment.json"
ORDERS = "backtest/orders.parquet"
NEEDED = (CONFIG, SUMMARY, ENVIRONMENT, PREDICTIONS)
# Of a run: its pictures and its page, which its tables make again; what the ledger of a team says of others; its code.
LEFT_OUT = re.compile(r"(figures|report|ledger)/.*|code_\w+\.txt")
TAGS = ("device", "region", "git_commit", "data_fingerprint")
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # so that a bundle of the same run is the same bytes


@dataclass(frozen=True)
class Written:
    """A bundle that was written.

    Attributes
    ----------
    path
        The file.
    index
        What its `bundle.json` says.
    notes
        What a reader should know of it.
    """

    path: Path
    index: Mapping[str, Any]
    notes: tuple[str, ...]


def write_bundle(client: MlflowClient, run: Run, out: Path, store: Path | None = None) -> Written:
    """Write a run as a bundle, whole or not at all.

    Parameters
    ----------
    client
        Of the MLflow store that has the run.
    run
        A finished one.
    out
        The file to write.
    store
        Where its data lie; by default where they lay. Where they are there, their parts are noted, so that a verification on
        other data says which part differs.

    Raises
    ------
    UserError
        If the run did not finish, is one below another, keeps too little, or an artifact is not what it wrote.
    """
    if run.info.status != "FINISHED":
        raise UserError(
            f"the run `{run.info.run_name}` ({run.info.run_id}) must be FINISHED, found {run.info.status}: let it finish, or "
            "name another"
        )
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = {}
        waiting = [run.info.run_id]
        while waiting:
            run_id = waiting.pop(0)
            if run_id not in runs:
                runs[run_id], below = _fetched(client, run_id, folder, notes)
                waiting += below
        top = folder / FOLDER / run.info.run_id
        summary = json.loads((top / SUMMARY).read_text("utf-8"))
        environment = json.loads((top / ENVIRONMENT).read_text("utf-8"))
        place = str(store or run.data.tags.get("store", ""))
        parts = _parts(place, str(summary["fingerprint"]), notes)
        (folder / WORKFLOW).write_text(_workflow(top / CONFIG, run, client, place), encoding="utf-8")
        (folder / CONSTRAINTS).write_text(_constraints(environment, notes), encoding="utf-8")
        artifacts = runs[run.info.run_id]["artifacts"]
        index = {
            "format": FORMAT,
            "written_by": f"qlib-ext {qlib_ext.__version__}",
            "run": run.info.run_id,
            "scores": artifacts[PREDICTIONS]["content"],
            "orders": artifacts.get(ORDERS, {}).get("content"),
            "data": {"fingerprint": summary["fingerprint"], "parts": parts},
            "environment": environment,
            "files": {each: _file(folder / each) for each in (WORKFLOW, CONSTRAINTS)},
            "runs": runs,
        }
        (folder / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        _pack(folder, out)
    return Written(out, index, tuple(notes))


def _fetched(
    client: MlflowClient, run_id: str, folder: Path, notes: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """The entry of a run, whose artifacts come into the folder; and the runs below it."""
    run = client.get_run(run_id)
    root = folder / FOLDER / run_id
    paths = sorted(
        path
        for path in _listed(client, run_id)
        if not LEFT_OUT.fullmatch(path) and (PurePosixPath(path).suffix in KINDS or path == CONFIG)
    )
    lacking = [path for path in NEEDED if path not in paths]
    if lacking:
        raise UserError(
            f"the run `{run.info.run_name}` ({run_id}) keeps no {', '.join(lacking)}: a bundle is made of a run of a "
            "workflow with SignalRecord"
        )
    kept = RunArtifacts.download(client, run_id, paths, root, makers())
    if set(kept.unchecked) - {MANIFEST}:
        notes.append(
            f"the run {run_id} kept no checksums of {len(kept.unchecked)} artifacts: damage before today goes unnoticed"
        )
    commit = run.data.tags.get("git_commit", "")
    if commit.endswith("(modified)"):
        notes.append(f"the run {run_id} was made by code that no commit has: {commit}")
    artifacts = {path: {**_file(root / path), "content": _content(root / path, path)} for path in paths}
    entry = {
        "name": run.info.run_name,
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "tags": {name: run.data.tags[name] for name in TAGS if name in run.data.tags},
        "artifacts": artifacts,
    }
    return entry, below(root)


def _content(file: Path, path: str) -> str | None:
    """The hash of what an artifact says; None of those that are compared otherwise."""
    return None if path in (CONFIG, MANIFEST) else read_content(file, path).digest()


def _listed(client: MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    for item in client.list_artifacts(run_id, folder):
        if item.is_dir:
            yield from _listed(client, run_id, item.path)
        else:
            yield item.path


def _file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": checksum(path)}


def _parts(place: str, fingerprint: str, notes: list[str]) -> dict[str, str]:
    """The parts of the data, where they are there and are still those of the run."""
    try:
        store = QlibStore(place)
        if store.fingerprint() == fingerprint:
            return data_parts(store)
        why = "are others now"
    except (StoreError, OSError):
        why = "are not there"
    notes.append(
        f"the data of the run {why} ({place or 'it does not say where they lay'}): a verification on other data can only say "
        "that they differ, and does not look at side data; name them by `--store DIR`"
    )
    return {}


def _workflow(config: Path, run: Run, client: MlflowClient, place: str) -> str:
    """The workflow as `qrun` takes it: no template, all values filled in."""
    workflow = {
        "experiment_name": client.get_experiment(run.info.experiment_id).name,
        "qlib_init": {
            "provider_uri": place,
            "region": run.data.tags.get("region", "cn"),
            "exp_manager": {"class": MANAGER},
        },
        "task": load_yaml(config.read_text("utf-8")),
    }
    return yaml.safe_dump(workflow, sort_keys=False, allow_unicode=True)


def _constraints(environment: Mapping[str, str], notes: list[str]) -> str:
    """Pins for pip: those that the run noted, and where they are what is installed, those of all that they bring."""
    noted = {name: version for name, version in environment.items() if _installed(name) is not None}
    others = [name for name, version in noted.items() if _installed(name) != version]
    found = {_distribution(name): version for name, version in noted.items()}
    if others:
        notes.append(
            f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} of another version here than in the run, so "
            f"{CONSTRAINTS} has only what the run noted"
        )
    else:
        found |= _closure("qlib-ext")
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def _distribution(name: str) -> str:
    return name.replace("_", "-").lower()


def _installed(name: str) -> str | None:
    if _distribution(name) == "qlib-ext":
        return qlib_ext.__version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _closure(top: str) -> dict[str, str]:
    """What is installed of a distribution and of all that it brings, extras among them."""
    found: dict[str, str] = {}
    waiting = [top]
    while waiting:
        name = _distribution(waiting.pop())
        if name in found or (version := _installed(name)) is None:
            continue
        found[name] = version
        try:
            waiting += [
                re.split(r"[^\w.-]", said, maxsplit=1)[0] for said in importlib.metadata.requires(name) or ()
            ]
        except importlib.metadata.PackageNotFoundError:
            continue  # the package itself, run from its sources
    return found


def _pack(folder: Path, out: Path) -> None:
    part = out.with_name(f".{out.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), LONG_AGO)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                with path.open("rb") as content, archive.open(entry, "w", force_zip64=True) as target:
                    while block := content.read(1 << 20):
                        target.write(block)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of the whole bundle."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
