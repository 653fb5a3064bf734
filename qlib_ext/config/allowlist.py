"""Which packages a configuration may name classes of.

To build a class is to run code, and a configuration may come from somebody else: a workflow that was sent, a run on a
server that others write to. So only packages that are known are imported for it. Whoever runs the program may add
some of his own by the environment; the configuration itself may not.
"""

from __future__ import annotations

import os

from qlib_ext.checks import UserError

# torchjd holds published aggregators, torch.nn layers that may serve as heads.
KNOWN = ("qlib", "qlib_ext", "torch.nn", "torchjd")
VARIABLE = "QLIB_EXT_PACKAGES"


def allowed() -> tuple[str, ...]:
    """The known packages, and those that the environment's QLIB_EXT_PACKAGES adds, separated by commas.

    Raises
    ------
    UserError
        If the variable names something that is no dotted name of a package or a module.
    """
    added = tuple(word.strip() for word in os.environ.get(VARIABLE, "").split(",") if word.strip())
    for word in added:
        if not all(part.isidentifier() for part in word.split(".")):
            raise UserError(
                f"`{VARIABLE}` must name packages or modules, separated by commas, such as my_losses,my.package; "
                f"found {word!r}"
            )
    return (*KNOWN, *added)


def is_allowed(module: str) -> bool:
    """Whether a module is one of the allowed packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in allowed())


def check_allowed(module: str, *, name: str, path: str) -> None:
    """Raise a UserError, before anything is imported, unless a configuration may name classes of `module`.

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
            f"`{name}.class` must be of one of the packages {', '.join(allowed())}, found {path!r}: where you know and "
            f"trust that code, allow it by the environment, {VARIABLE}={module.partition('.')[0]}"
        )
