from __future__ import annotations

import pytest
import requests

from qlib_ext.checks import UserError
from qlib_ext.market.fetch import polite as module
from qlib_ext.market.fetch.polite import NotGrantedError, PassingError, SourceError, passes


class Clock:
    """Time that passes by waiting alone."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, []  # type: tuple[float, list[float]]

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def polite(clock: Clock, per_minute: float = 60, tries: int = 4) -> module.Polite:
    made = module.Polite(per_minute, tries)
    made.sleep, made.clock, made.pause = clock.sleep, lambda: clock.now, 60 / per_minute
    return made


def test_calls_are_spaced() -> None:
    clock = Clock()
    calls = polite(clock, per_minute=30)
    for _ in range(3):
        calls.call("it", lambda: 1, lambda error: error)
    assert clock.waits == [2.0, 2.0]
    clock.now += 60
    calls.call("it", lambda: 1, lambda error: error)
    assert len(clock.waits) == 2


def test_waits_double_and_one_that_the_server_asks_for_is_kept() -> None:
    clock = Clock()
    errors = [PassingError("busy"), PassingError("too often", 60.0), PassingError("busy")]

    def ask() -> int:
        if errors:
            raise errors.pop(0)
        return 7

    assert polite(clock, per_minute=1e9).call("it", ask, lambda error: error) == 7
    assert [wait for wait in clock.waits if wait > 1e-3] == [2.0, 60.0, 8.0]


def test_what_does_not_pass_is_raised_at_once_and_what_does_after_all_tries() -> None:
    clock = Clock()

    def ask() -> None:
        raise KeyError("x")

    with pytest.raises(NotGrantedError):
        polite(clock).call("it", ask, lambda error: NotGrantedError("no"))
    assert clock.waits == []
    with pytest.raises(SourceError, match="it failed 4 times, last with: gone; see to the network"):
        polite(clock).call("it", ask, lambda error: PassingError("gone"))


@pytest.mark.parametrize(
    ("error", "is_passing"),
    [
        (requests.ConnectionError("x"), True),
        (requests.Timeout("x"), True),
        (requests.exceptions.JSONDecodeError("x", "doc", 0), True),
        (TimeoutError("x"), True),
        (KeyError("x"), False),
        (ValueError("x"), False),
    ],
)
def test_what_passes(error: Exception, is_passing: bool) -> None:
    assert (passes(error) is not None) == is_passing


@pytest.mark.parametrize(("status", "wait"), [(429, 30.0), (503, 0.0), (404, None)])
def test_errors_of_http(status: int, wait: float | None) -> None:
    answer = requests.Response()
    answer.status_code = status
    found = passes(requests.HTTPError("x", response=answer))
    assert (None if found is None else found.wait) == wait


def test_arguments() -> None:
    with pytest.raises(UserError, match="`per_minute` must be above 0"):
        module.Polite(0)
    with pytest.raises(UserError, match="`tries` must be at least 1"):
        module.Polite(1, 0)
