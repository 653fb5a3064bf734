"""`qlib-ext doctor`: what an issue should say of the machine, and no secret of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

import qlib_ext
from qlib_ext.cli.answer import Answer, exits
from qlib_ext.masking import masked
from qlib_ext.terminal import quiet_imports, say

NAME = "qlib-ext"
# Whose names are told where they are set; no value of the environment is.
VARIABLES = (
    "MLFLOW_",
    "QLIB_",
    "OMP_",
    "CUDA_",
    "N_EPOCHS",
    "SEED",
    "DEVICE",
    "PRECISION",
    "SEGMENTS",
    "PYTHONPATH",
)

Part = dict[str, Any]


@exits({1: "something is wrong"})
def doctor(
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A store, to tell its days, stocks and fingerprint.", show_default=False
        ),
    ] = None,
) -> Answer:
    """Say what is installed, on what it runs and what is wrong with it, for an issue: no secret, no value of a variable."""
    found = examined(store)
    for line in lines(found):
        say(line)
    return Answer(found, 1 if found["problems"] else 0)


def examined(store: Path | None = None) -> Part:
    """What there is to tell, as plain mappings; `problems` are sentences."""
    problems: list[str] = []
    found: Part = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "package": {"version": qlib_ext.__version__, "place": str(Path(qlib_ext.__file__).parent)},
    }
    parts: dict[str, Callable[[], Part]] = {
        "dependencies": lambda: _dependencies(problems),
        "extras": _extras,
        "workflows": _workflows,
        "device": _device,
        "mlflow": lambda: _mlflow(problems),
        "disk": _disk,
    }
    if store is not None:
        parts["store"] = lambda: _store(store)
    for name, part in parts.items():
        try:
            with quiet_imports():
                found[name] = part()
        except Exception as error:  # noqa: BLE001 - whatever is broken is what a person wants to know
            said = (str(error).strip() or "no message").splitlines()[0]
            problems.append(f"{name}: {type(error).__name__}: {said}")
    found["variables"] = sorted(name for name in os.environ if name.startswith(VARIABLES))
    found["problems"] = problems
    return {name: _harmless(value) for name, value in found.items()}


def lines(found: Part) -> list[str]:
    """The same for a person, a line each."""
    package, extras = found["package"], found.get("extras", {})
    there = [name for name, whole in extras.items() if whole]
    told = {
        NAME: f"{package['version']}, in {package['place']}",
        "Python": found["python"],
        "System": f"{found['platform']}, {found['cores']} cores",
        "Packages": ", ".join(f"{name} {version}" for name, version in found.get("dependencies", {}).items()),
        "Extras": f"{', '.join(there) or 'none'}; not {', '.join(sorted({*extras} - {*there})) or 'any other'}",
        "Set": ", ".join(found["variables"]) or "no variable of this package",
    }
    for name in ("workflows", "device", "mlflow", "disk", "store"):
        if name in found:
            told[name.capitalize()] = ", ".join(f"{key} {value}" for key, value in found[name].items())
    told |= {f"Problem {k}": problem for k, problem in enumerate(found["problems"], 1)}
    if not found["problems"]:
        told["Problems"] = "none that can be seen from here"
    return [f"{name:<11}{text}" for name, text in told.items()]


def _dependencies(problems: list[str]) -> Part:
    """The version of each direct dependency; what is missing or out of its range is a problem."""
    from packaging.requirements import Requirement

    known, found = importlib.metadata.version(NAME), {}
    if known != qlib_ext.__version__:
        problems.append(f"{NAME} is {qlib_ext.__version__}, and pip knows {known}: install it again")
    for requirement in map(Requirement, importlib.metadata.requires(NAME) or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found[requirement.name] = version = _version(requirement.name)
        if version is None:
            problems.append(f"{requirement} is not installed: pip install {NAME}")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement} is wanted, found {version}: pip install {NAME}")
    return found


def _extras() -> Part:
    """Extra -> whether all that it names is there; those that gather others are left out."""
    from packaging.requirements import Requirement

    every = [*map(Requirement, importlib.metadata.requires(NAME) or [])]
    found: Part = {}
    for extra in importlib.metadata.metadata(NAME).get_all("Provides-Extra") or []:
        own = [each for each in every if each.marker is not None and not each.marker.evaluate({"extra": ""})]
        own = [each for each in own if each.marker is not None and each.marker.evaluate({"extra": extra})]
        if own and NAME not in {each.name for each in own}:
            found[extra] = all(_version(each.name) is not None for each in own)
    return found


def _workflows() -> Part:
    from qlib_ext.workflow.starter import workflows_folder

    folder = workflows_folder()
    return {"folder": str(folder), "files": len([*folder.glob("*.yaml")])}


def _device() -> Part:
    import torch

    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] if cuda else []
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "not built in",
        "auto": "cuda" if cuda else "cpu",
        "devices": "; ".join(names) or "none",
        "threads": torch.get_num_threads(),
    }


def _mlflow(problems: list[str]) -> Part:
    """Where runs would go; a server is not asked, a database is looked at."""
    from qlib_ext.checks import UserError
    from qlib_ext.tracking import database
    from qlib_ext.tracking.runs import DEFAULT_DATABASE, checked_uri

    given = os.environ.get("MLFLOW_TRACKING_URI")
    uri = given or f"sqlite:///{DEFAULT_DATABASE}"
    told: Part = {"uri": masked(uri), "from": "MLFLOW_TRACKING_URI" if given else "the default"}
    try:
        file = database.database_file(checked_uri(uri))
        if file is not None:
            told["bytes"] = file.stat().st_size if file.exists() else 0
            database.check(uri)
    except UserError as error:
        problems.append(f"mlflow: {error}")
    return told


def _disk() -> Part:
    there = shutil.disk_usage(Path.cwd())
    return {
        "folder": str(Path.cwd()),
        "free": f"{there.free / 1e9:.1f} GB",
        "of": f"{there.total / 1e9:.1f} GB",
    }


def _store(root: Path) -> Part:
    from qlib_ext.market.store import QlibStore

    store = QlibStore(root)
    return {
        "folder": str(store.root),
        "days": len(store.calendar),
        "first": f"{store.calendar[0]:%Y-%m-%d}",
        "last": f"{store.calendar[-1]:%Y-%m-%d}",
        "stocks": len(store.instruments()),
        "universes": " ".join(store.universes()),
        "fingerprint": store.fingerprint(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _harmless(value: Any) -> Any:
    """Texts without secrets, and without the name of who is at home here."""
    if isinstance(value, dict):
        return {key: _harmless(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_harmless(each) for each in value]
    if not isinstance(value, str):
        return value
    home = str(Path("~").expanduser())
    return masked(value).replace(home, "~") if Path(home).name else masked(value)
