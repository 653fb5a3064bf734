"""Options of the form KEY=VALUE, which may be given many times."""

from __future__ import annotations

from collections.abc import Iterable

from qlib_ext.checks import UserError


def pairs(
    option: str, given: Iterable[str] | None, example: str, *, empty: bool = True, alone: bool = False
) -> dict[str, str]:
    """The option's mapping.

    Parameters
    ----------
    option
        Its name on the command line, `--column`.
    given
        Its values; None where it was not given.
    example
        What one looks like, for the message.
    empty
        Whether `KEY=` is a value, the empty one.
    alone
        Whether a value may stand without a key: its key is the empty one.

    Raises
    ------
    UserError
        If a value has another form, or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in given or ():
        key, sign, value = text.partition("=")
        if not sign and alone:
            key, value = "", key
        elif not (sign and key and (value or empty)):
            raise UserError(f"`{option}` must be as in {example}, found {text!r}")
        if key in found:
            raise UserError(f"`{option}` must be given once for {key or 'all others'}, found {text!r} again")
        found[key] = value
    return found
