from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.recommend import daily as module
from qlib_ext.recommend.daily import DailyConfig, Outcome, Status

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asks for; it is told that there is no new day."""
    found: list[Any] = []

    def daily(config: DailyConfig, *, again: bool, progress: object) -> Outcome:
        found.append((config, again))
        return Outcome(
            Status.NO_NEW_DAY, "no new day", "no new day\n\npassword=a-long-one\n", None, (Path("a.html"),)
        )

    monkeypatch.setattr(module, "daily", daily)
    return found


def test_the_exit_status_is_that_of_the_outcome(command: Command, asked: list[Any]) -> None:
    status, out, err = command("daily", "--store", "cn", "--run", "mine", "--accept", "price-zero", "--again")
    assert (status, err) == (3, "")
    assert out == "no new day\n\npassword=***\n\nWritten: a.html\n"
    assert asked == [(DailyConfig(store="cn", run="mine", accept=("price-zero",)), True)]


def test_an_option_comes_before_the_file(command: Command, asked: list[Any], tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(
        "{store: cn, run: mine, source: tushare, options: {per_minute: 50}, top: 5}"
    )
    command("daily", "d.yaml", "--run", "other", "--universe", "csi300,csi500", "--option", "tries=2")
    (config, again) = asked[0]
    assert not again
    assert (config.run, config.top, config.universes) == ("other", 5, ("csi300", "csi500"))
    assert config.options == {"per_minute": 50, "tries": "2"}
    assert config.store == str(tmp_path / "cn")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "error: the options must say store and run, found nothing\n"),
        (("no.yaml",), "error: `no.yaml` must be a YAML file of settings, found none"),
        (("--store", "cn", "--run", "mine", "--source", "tushar"), "error: `SOURCE` must be one of"),
    ],
)
def test_a_mistake_is_one_line(command: Command, words: tuple[str, ...], message: str) -> None:
    status, out, err = command("daily", *words)
    assert (status, out) == (2, "")
    assert err.startswith(message)
