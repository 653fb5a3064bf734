"""The workflows of the package, and a folder to begin in: they, a README and the sample market's command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import qlib_ext
from qlib_ext.checks import UserError, nearest

MAIN = "mimstocr_csi300.yaml"
README = "README.md"
SAMPLE = "sample_market"
SAMPLE_ARGUMENTS = {"seed": 0, "start": "2013-01-04", "end": "2018-12-28"}
# One epoch with large steps where the workflow has 100 with small ones, and a narrower backbone.
DEMONSTRATION = {"N_EPOCHS": "1", "LEARNING_RATE": "0.002", "HIDDEN_SIZE": "32"}
_VARIABLE = re.compile(r"\{\{ (\w+) \| default\((.+?), true\) \}\}")

_TEXT = """\
# A folder for runs of qlib-ext

`workflows/` holds the workflows of qlib-ext {version}. They are yours to change; `qlib-ext check FILE` says what is wrong
with one before it runs.

## A first run

```sh
qlib-ext quickstart .
```

That is, in single steps, with a market made up from a seed:

```sh
{sample}
{demonstration} qrun workflows/{main}
```

## Your data

Any directory in Qlib's format will do. `qlib-ext data --help` lists what makes and mends one.

```sh
QLIB_DATA=~/.qlib/qlib_data/cn_data qrun workflows/{main}
```

Runs lie in `mlflow.db` and `mlruns`, reports in `reports/runs`.

```sh
qlib-ext compare EXPERIMENT...
mlflow ui --backend-store-uri sqlite:///mlflow.db
```

## Variables

Set in the environment, they change a run without a change to its file.

| variable | default | where |
|---|---|---|
{variables}
"""


def workflows_folder() -> Path:
    """Where the package's workflows lie: in an installed package, or beside it in the repository.

    Raises
    ------
    UserError
        If the installation has none.
    """
    package = Path(qlib_ext.__file__).parent
    for folder in (package / "workflows", package.parent / "workflows"):
        if (folder / MAIN).is_file():
            return folder
    raise UserError(
        f"the workflows must lie in {package / 'workflows'}, found none: install the package again"
    )


def shipped_workflow(name: str) -> Path:
    """The file of a workflow of the package, such as `mimstocr_csi300`.

    Raises
    ------
    UserError
        If there is none of that name.
    """
    found = {path.stem: path for path in sorted(workflows_folder().glob("*.yaml"))}
    stem = name.removesuffix(".yaml")
    if stem not in found:
        raise UserError(
            f"the package has no workflow `{name}`{nearest(stem, found)}; it has {', '.join(found)}"
        )
    return found[stem]


def defaults(text: str) -> dict[str, str]:
    """The variables that a workflow takes from the environment, and their defaults."""
    return {name: default.strip("'\"") for name, default in _VARIABLE.findall(text)}


def begin(folder: Path) -> None:
    """Write workflows and a README into an empty folder, which is made where it is not there.

    Parameters
    ----------
    folder
        Hidden files in it, such as `.git` and `.venv`, do not count and stay.

    Raises
    ------
    UserError
        If it is no folder or has something in it; nothing is written then.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"`DIR` must be a folder, found {folder}, which is none: name another")
    there = sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.exists() else []
    if there:
        raise UserError(
            f"`DIR` must be empty, found {', '.join(there[:3])}{', ...' * (len(there) > 3)} in {folder.absolute()}: "
            "nothing was written; name another folder"
        )
    source = workflows_folder()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, folder / "workflows", ignore=lambda *_: ["__pycache__"])
    (folder / README).write_text(_readme(source), encoding="utf-8")


def is_begun(folder: Path) -> bool:
    """Whether a folder has the main workflow, as `begin` leaves it."""
    return (folder / "workflows" / MAIN).is_file()


def run_main(folder: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Run the main workflow in a folder, on the sample market below it and as a demonstration; the report's path.

    Parameters
    ----------
    folder
        Which `begin` has filled, and which holds the sample market.
    environment
        That of this process by default; what it sets of `N_EPOCHS`, `LEARNING_RATE` and `HIDDEN_SIZE` counts.

    Raises
    ------
    UserError
        If the run fails, which has said why.
    """
    given = os.environ if environment is None else environment
    own = {"MLFLOW_DISABLE_TELEMETRY": "true", **DEMONSTRATION, **given, "QLIB_DATA": SAMPLE}
    before = set(_reports(folder))
    command = [sys.executable, "-m", "qlib.cli.run", f"workflows/{MAIN}"]
    # What the run says goes to stderr: stdout has what was asked for.
    done = subprocess.run(command, cwd=folder, env=own, stdout=2, check=False)
    new = [path for path in _reports(folder) if path not in before]
    if done.returncode or not new:
        raise UserError(
            f"the run ended with status {done.returncode} and left no report: it has said why above; "
            "`qlib-ext doctor` shows what is installed"
        )
    return max(new, key=lambda path: path.stat().st_mtime).resolve()


def _reports(folder: Path) -> list[Path]:
    return [*folder.glob("reports/runs/*/report.html")]


def sample_command() -> str:
    """The command that writes the sample market."""
    options = " ".join(f"--{name} {value}" for name, value in SAMPLE_ARGUMENTS.items())
    return f"qlib-ext data sample --out {SAMPLE} {options}"


def _readme(source: Path) -> str:
    where: dict[tuple[str, str], list[str]] = {}
    for path in sorted(source.glob("*.yaml"), key=lambda path: (path.name != MAIN, path.name)):
        for variable in defaults(path.read_text(encoding="utf-8")).items():
            where.setdefault(variable, []).append(path.stem)
    rows = [
        f"| `{name}` | `{default}` | {_listed(files)} |"
        for (name, default), files in sorted(where.items(), key=lambda row: row[0][0])
    ]
    return _TEXT.format(
        version=qlib_ext.__version__,
        sample=sample_command(),
        demonstration=" ".join(f"{k}={v}" for k, v in {"QLIB_DATA": SAMPLE, **DEMONSTRATION}.items()),
        main=MAIN,
        variables="\n".join(rows),
    )


def _listed(files: list[str]) -> str:
    return ", ".join(files) if len(files) < 4 else f"{files[0]} and {len(files) - 1} more"
