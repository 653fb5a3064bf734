"""What holds for every command: the list is the parser's own, so that a new command cannot forget it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import COMMON, Answer, Commands, exits, plain, statuses
from qlib_ext.cli.main import app
from qlib_ext.market.store import QlibStore

Command = Callable[..., tuple[int, str, str]]
PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def listed(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from listed(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS = dict(listed(get_command(app)))
NAMES = sorted(COMMANDS)


def function(name: str) -> Callable[..., Answer]:
    return inspect.unwrap(COMMANDS[name].callback)


class TestEveryCommand:
    @pytest.mark.parametrize("name", NAMES)
    def test_it_answers_with_a_document(self, name: str) -> None:
        assert get_type_hints(function(name))["return"] is Answer
        assert "--json" in [option for parameter in COMMANDS[name].params for option in parameter.opts]

    @pytest.mark.parametrize("name", NAMES)
    def test_its_help_has_its_exit_statuses(self, name: str) -> None:
        for status, what in statuses(function(name)).items():
            assert f"{status} {what}" in COMMANDS[name].epilog

    def test_the_page_has_each_with_what_it_does_and_how_it_ends(self) -> None:
        rows = re.findall(
            r"^\| `qlib-ext ([a-z -]+)` \| (.+?) \| (.*?) \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE
        )
        told = {name: (what, ends) for name, what, ends, _ in rows}
        expected = {}
        for name in NAMES:
            what = " ".join(COMMANDS[name].help.partition("\n\n")[0].split())
            own = getattr(function(name), "exits", {})
            expected[name] = what, "; ".join(f"{status}: {said}" for status, said in own.items())
        assert told == expected

    def test_the_page_has_the_statuses_that_all_share(self) -> None:
        told = dict(re.findall(r"^\| (\d+) \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE))
        assert told == {str(status): what for status, what in COMMON.items()}

    def test_a_mistake_is_a_document_too(self, command: Command) -> None:
        status, out, err = command("data", "info", "nowhere", "--json")
        assert status == 2
        assert err == f"error: {json.loads(out)['error']}\n"


class TestDocuments:
    """Those of commands that are quick; others are asked for theirs in their own tests."""

    @pytest.fixture(scope="class")
    def keys(self) -> dict[str, set[str]]:
        """What the page says is in a document."""
        rows = re.findall(
            r"^\| `qlib-ext ([a-z -]+)` \|.*\| ([^|]+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE
        )
        return {name: set(re.findall(r"`(\w+)`", told)) for name, told in rows}

    def test_it_is_alone_on_stdout_and_as_the_page_says(
        self, command: Command, keys: dict[str, set[str]], tmp_path: Path
    ) -> None:
        tiny = ("--stocks", 20, "--start", "2014-01-01", "--end", "2014-08-01")
        command("data", "sample", "--out", "cn", *tiny)  # left as it is by the next call
        code = QlibStore(tmp_path / "cn").membership("csi300")["instrument"].iloc[0]
        (tmp_path / "few.csv").write_text(f"code,from,to\n{code},2014-01-02,2014-08-01\n")
        (tmp_path / "values.csv").write_text(f"date,code,market_value\n2014-01-02,{code},1e9\n")
        for words in (
            ("data sample", "--out", "cn", *tiny),
            ("data info", "cn"),
            ("data check", "cn"),
            ("data universe", "cn", "few", "--constituents", "few.csv"),
            ("data side-data", "cn", "market_value", "values.csv", "--replace"),
            ("ledger", "cn"),
        ):
            name = words[0]
            _, out, err = command(*name.split(), *words[1:], "--json")
            assert err == "", name
            assert set(json.loads(out)) == keys[name], name


class TestCommands:
    def test_a_status_that_is_told_ends_it_and_the_next_command_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        @exits({3: "no new day"})
        def planted() -> Answer:
            return Answer({"days": np.int64(2)}, 3, "qlib-ext look")

        made = Commands()
        made.command("planted")(planted)
        ended = []
        for words in ([], ["--json"]):
            with pytest.raises(SystemExit) as caught:
                made(words)
            ended.append((caught.value.code, *capsys.readouterr()))
        assert ended == [(3, "", "Next: qlib-ext look\n"), (3, '{\n  "days": 2\n}\n', "")]


class TestPlain:
    def test_everything_becomes_what_json_can_say(self) -> None:
        table = pd.DataFrame({"day": [pd.Timestamp("2014-01-02"), pd.NaT], "x": [0.1 + 0.2, np.inf]})
        found = plain(
            {
                "table": table,
                "path": Path("a"),
                "at": pd.Timestamp("2014-01-02 09:30"),
                "numbers": (np.float32(0.5), np.nan, True, pd.NA),
                3: "x",
            }
        )
        assert found == {
            "table": [{"day": "2014-01-02", "x": 0.1 + 0.2}, {"day": None, "x": None}],
            "path": "a",
            "at": "2014-01-02T09:30:00",
            "numbers": [0.5, None, True, None],
            "3": "x",
        }
        json.dumps(found, allow_nan=False)

    def test_a_fault_of_a_command_is_not_hidden(self) -> None:
        def planted() -> Answer:
            raise UserError("no")

        made = Commands()
        made.command("planted")(planted)
        with pytest.raises(UserError):
            made(["--json"])
