from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.verify import verdict
from qlib_ext.verify.content import Difference
from qlib_ext.verify.verdict import Verdict

Command = Callable[..., tuple[int, str, str]]
SCORES = "signal/predictions.parquet"
FOUND = Difference(SCORES, "2016-09-05 SH600000", "score", "0.1", "0.2", 1, 0.5)


@pytest.fixture
def came_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the verification come to something, without executing anything."""

    def planted(*differences: Difference, error: UserError | None = None) -> None:
        def verify(path: Path, store: Path | None, **given: Any) -> Verdict:
            if error is not None:
                raise error
            hashes = {SCORES: ("a" * 16, "b" * 16 if differences else "a" * 16)}
            return Verdict(
                "id",
                "mine",
                "0",
                given["train"],
                hashes,
                ("model/booster.txt",),
                differences,
                (),
                1e-4,
                False,
                ("so",),
            )

        monkeypatch.setattr(verdict, "verify", verify)

    return planted


def test_the_same_ends_with_0(command: Command, came_to: Callable[..., None]) -> None:
    came_to()
    status, out, _ = command("verify", "b.zip")
    assert status == 0
    assert out.splitlines()[-1].startswith("verdict  same: 1 table made again from its stored weights")
    assert f"scores   {'a' * 16} in the bundle, {'a' * 16} here" in out
    assert "note     so" in out


def test_the_first_difference_ends_with_1(command: Command, came_to: Callable[..., None]) -> None:
    came_to(FOUND)
    status, out, _ = command("verify", "b.zip", "--train")
    assert status == 1
    assert f"first    {SCORES}: 2016-09-05 SH600000, score: 0.1 in the bundle, 0.2 here" in out
    assert "verdict  different: 1 of 1 table trained again from its seed differ" in out
    status, out, _ = command("verify", "b.zip", "--json")
    assert status == 1
    said = json.loads(out)
    assert (said["verdict"], said["first"]["column"], said["differing"]) == ("different", "score", [SCORES])


def test_what_cannot_be_executed_ends_with_2(command: Command, came_to: Callable[..., None]) -> None:
    came_to(error=UserError("the bundle cannot be executed: no"))
    assert command("verify", "b.zip") == (2, "", "error: the bundle cannot be executed: no\n")
