"""How every command answers: in words, or with `--json` as one document, by an exit status, and with what to do next.

A command is a function that says its words by `qlib_ext.terminal` and returns an `Answer`. `Commands` gives it the option
`--json`, prints the document, names the next command, and ends with the status. So no command does any of it by itself.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from qlib_ext.terminal import say

F = TypeVar("F", bound=Callable[..., Any])

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")]
INTERRUPTED = 130  # what a shell gives a command that Ctrl-C ended
COMMON = {
    0: "done",
    1: "a fault of the program",
    2: "a mistake in the command or in what it reads, or no place, library or server for it",
    INTERRUPTED: "interrupted",
}


@dataclass(frozen=True)
class Answer:
    """What a command came to.

    Attributes
    ----------
    document
        What it found, for `--json`: mappings, lists, texts, numbers, and what `plain` makes such of.
    status
        The exit status.
    then
        What one would do next, as a command; empty where that is open.
    """

    document: Mapping[str, Any]
    status: int = 0
    then: str = ""


def exits(statuses: Mapping[int, str]) -> Callable[[F], F]:
    """Tell with which statuses a command ends beside those of `COMMON`, or what one of these means here."""

    def told(command: F) -> F:
        command.exits = dict(statuses)  # type: ignore[attr-defined]
        return command

    return told


def statuses(command: Callable[..., Any]) -> dict[int, str]:
    """Every exit status of a command, and what it means."""
    own: dict[int, str] = getattr(command, "exits", {})
    both = {key: f"{own[key]}, or {COMMON[key]}" for key in own if key in COMMON and key != 0}
    return dict(sorted({**COMMON, **own, **both}.items()))


class Commands(typer.Typer):
    """Typer's, whose commands return an `Answer`."""

    def command(self, name: str | None = None, **how: Any) -> Callable[[F], F]:
        """Register a command, with `--json` and its exit statuses in its help."""

        def registered(command: F) -> F:
            said = "; ".join(f"{status} {what}" for status, what in statuses(command).items())
            super(Commands, self).command(name, epilog=f"Exit status: {said}.", **how)(_answering(command))
            return command

        return registered


def _answering(command: Callable[..., Answer]) -> Callable[..., None]:
    """The command as Typer calls it."""

    @functools.wraps(command)
    def called(*, as_json: bool, **given: Any) -> None:
        with contextlib.redirect_stdout(io.StringIO()) if as_json else contextlib.nullcontext():
            answer = command(**given)
        if as_json:
            write(answer.document)
        elif answer.then:
            say(f"Next: {answer.then}", err=True)
        if answer.status:
            raise typer.Exit(answer.status)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson)
    parameters = [*signature.parameters.values(), option]
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {**get_type_hints(command, include_extras=True), "as_json": AsJson}
    return called


def wants_json(arguments: Iterable[str] | None = None) -> bool:
    """Whether the command line asks for a document."""
    return "--json" in (sys.argv[1:] if arguments is None else arguments)


def write(document: Mapping[str, Any]) -> None:
    """Print a document on stdout."""
    say(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False), lines=True)


def plain(value: Any) -> Any:
    """What JSON can say: no number for NaN and infinities, rows for a table, days as ISO 8601.

    Examples
    --------
    >>> plain({"store": Path("cn"), "ratio": float("nan"), "codes": ("SH600000",)})
    {'store': 'cn', 'ratio': None, 'codes': ['SH600000']}
    """
    if value is None or isinstance(value, (bool, int)):
        return value if value is None or isinstance(value, bool) else int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if hasattr(value, "to_dict") and hasattr(
        value, "columns"
    ):  # a table of pandas', which is not imported for it
        return [plain(row) for row in value.to_dict("records")]
    if isinstance(value, (list, tuple, Set)):
        return [plain(each) for each in value]
    if hasattr(value, "isoformat"):
        said = value.isoformat()
        return None if said == "NaT" else said.removesuffix("T00:00:00")
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # a number of numpy's
        return plain(value.item())
    return None if type(value).__name__ == "NAType" else str(value)
