"""Calls of a server of others: not too many, again where an error passes, and what went wrong in one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import requests

from qlib_ext.checks import UserError, above, integer
from qlib_ext.masking import masked

T = TypeVar("T")
KEPT = "What came before is kept, and the same command goes on from there"
LONGEST_WAIT = 120.0  # seconds between two tries


class SourceError(UserError):
    """A source could not be reached, refused, or sent what it did not send before."""


class NotGrantedError(SourceError):
    """The account may not ask for a table."""


class PassingError(Exception):
    """What a client raised will pass by itself.

    Parameters
    ----------
    message
        What it said.
    wait
        Seconds to wait at least.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class Polite:
    """Calls a client at most so often a minute, and again after errors that pass.

    Parameters
    ----------
    per_minute
        Calls at most.
    tries
        Of one call, before it counts as failed.
    first_wait
        Seconds after the first failure; they double with each further one.
    sleep, clock
        As in `time`.

    Raises
    ------
    UserError
        If an argument is out of range.
    """

    def __init__(
        self,
        per_minute: float,
        tries: int = 5,
        first_wait: float = 2.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pause = 60.0 / above("per_minute", per_minute, 0)
        self.tries = integer("tries", tries, 1, 100)
        self.first_wait, self.sleep, self.clock = first_wait, sleep, clock
        self._next = -float("inf")

    def call(self, what: str, ask: Callable[[], T], judge: Callable[[Exception], Exception]) -> T:
        """The answer of `ask`.

        Parameters
        ----------
        what
            The call in words, for messages.
        ask
            The call.
        judge
            An error of the client to what it means: a `PassingError`, or the error to raise.

        Raises
        ------
        SourceError
            If the errors do not pass; else what `judge` makes of the error.
        """
        for number in range(1, self.tries + 1):
            now = self.clock()
            if now < self._next:
                self.sleep(self._next - now)
            self._next = self.clock() + self.pause
            try:
                return ask()
            except Exception as error:  # clients raise anything, tushare `Exception` itself
                verdict = judge(error)
                if not isinstance(verdict, PassingError):
                    raise verdict from error
                if number == self.tries:
                    raise SourceError(
                        f"{what} failed {self.tries} times, last with: {masked(str(verdict))}; see to the network (a proxy is "
                        f"taken from the variable HTTPS_PROXY), or try again later. {KEPT}"
                    ) from error
                wait = min(self.first_wait * 2.0 ** (number - 1), LONGEST_WAIT)
                self.sleep(max(wait, verdict.wait))
        raise AssertionError("unreachable")


def passes(error: Exception) -> PassingError | None:
    """What networks do to anybody: silence, a connection that breaks, a busy server, an answer that is cut."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, requests.HTTPError) and status is not None and status < 500 and status != 429:
        return None
    if isinstance(error, PassingError):
        return error
    if isinstance(
        error, (requests.RequestException, OSError)
    ):  # a cut answer is no JSON, which is one of the first
        return PassingError(f"{type(error).__name__}: {error}", 30.0 if status == 429 else 0.0)
    return None


def shown(error: Exception) -> str:
    """An error of a client in a few words, without secrets."""
    said: Any = " ".join(str(error).split())[:300]
    return masked(f"{type(error).__name__}: {said}".rstrip(": "))
