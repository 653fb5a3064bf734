"""Which packages a configuration may name classes of.

To build a class is to run code, and a configuration may come from somebody else: a workflow that was sent, a run on a
server that others write to. So only packages that are known are imported for it. Whoever runs the program may add
some of his own by the environment; the configuration itself may not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from qlib_ext.checks import UserError, brief

# skfolio holds optimisers and their estimators, torchjd published aggregators, torch.nn layers that may serve as heads.
KNOWN = ("qlib", "qlib_ext", "skfolio", "torch.nn", "torchjd")
VARIABLE = "QLIB_EXT_PACKAGES"


def allowed() -> tuple[str, ...]:
    """The known packages, and those that the environment's QLIB_EXT_PACKAGES adds, separated by commas.

    Raises
    ------
    UserError
        If the variable names something that is no dotted name of a package or a module.
    """
    return (*KNOWN, *_added())


def _added() -> tuple[str, ...]:
    added = tuple(word.strip() for word in os.environ.get(VARIABLE, "").split(",") if word.strip())
    for word in added:
        if not all(part.isidentifier() for part in word.split(".")):
            raise UserError(
                f"`{VARIABLE}` must name packages or modules, separated by commas, such as my_losses,my.package; "
                f"found {brief(word)}"
            )
    return added


class _WorkingFolder(MetaPathFinder):
    """Finds packages that the environment allows in the working folder, where they are installed nowhere.

    A command has its own folder on `sys.path`, not the one that it is called in. That folder is not put there as a
    whole: no other module of it is ever imported, and what is installed comes first.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is None and name in {word.partition(".")[0] for word in _added()}:
            return PathFinder.find_spec(name, [str(Path.cwd())])
        return None


def allow(module: str) -> None:
    """Allow a module by the environment, for this process and those that it starts: its user handed over an object of it."""
    if not is_allowed(module):
        os.environ[VARIABLE] = ",".join([*_added(), module])


def is_allowed(module: str) -> bool:
    """Whether a module is one of the allowed packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in allowed())


def check_allowed(module: str, *, name: str, path: str) -> None:
    """Raise a UserError, before anything is imported, unless a configuration may name classes of `module`.

    From here on, a package that the environment allows is found in the working folder too.

    Parameters
    ----------
    module
        Dotted name of the module.
    name
        Where in the configuration the class stands, for messages.
    path
        The class as the configuration has it, for messages.
    """
    if not is_allowed(module):
        raise UserError(
            f"`{name}.class` must be of one of the packages {', '.join(allowed())}, found {brief(path)}: where you know and "
            f"trust that code, allow it by the environment, {VARIABLE}={module.partition('.')[0]}"
        )
    if not any(isinstance(finder, _WorkingFolder) for finder in sys.meta_path):
        sys.meta_path.append(_WorkingFolder())
