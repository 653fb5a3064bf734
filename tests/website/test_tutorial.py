"""The commands of the documentation are those of the program; the tutorial as a whole is run by `python -m website.tutorial`."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from qlib_ext.cli.main import app
from website import tutorial

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CALL = re.compile(r"(?:^|[ /$(`])qlib-ext ((?!--help).*)")


def calls(page: Path) -> Iterator[list[str]]:
    """The arguments of each call of `qlib-ext` in the page's blocks of shell."""
    for block in re.findall(
        r"^```(?:sh|bash|console)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        for line in block.replace("\\\n", " ").splitlines():
            for found in CALL.findall(line.partition(" # ")[0]):
                yield shlex.split(re.split(r"\s(?:&&|\|\||\||2?>|;)\s|\)|;", found)[0])


def wrong(arguments: list[str]) -> str | None:
    """What of a call the program does not know."""
    command: Any = get_command(app)
    words = [*arguments]
    while hasattr(command, "commands"):
        if words and words[0].startswith("--"):
            break
        if not words or words[0] not in command.commands:
            return f"no command {words[:1]}"
        command = command.commands[words.pop(0)]
    known = {
        option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]
    }
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_are_known(page: Path) -> None:
    found = [(call, wrong(call)) for call in calls(page)]
    assert not [each for each in found if each[1]]


def test_the_reader_sees_calls_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("```sh\nA=b qlib-ext data chekc x && y  # z\n.venv/bin/qlib-ext check x --no\n```\n")
    assert [wrong(call) for call in calls(page)] == ["no command ['chekc']", "no option ['--no']"]


class TestScript:
    def test_it_has_every_page_and_bash_can_read_it(self) -> None:
        pages = tutorial.pages()
        assert {page.name for page in pages} == {
            path.name for path in (ROOT / "docs" / "tutorial").glob("*.md")
        }
        script = tutorial.script(pages)
        assert script.count("=== ") == len(pages)
        assert script.count("qlib-ext ") > 15
        subprocess.run(["bash", "-n", "-c", script], check=True)

    def test_it_writes_files_and_runs_commands(self, tmp_path: Path) -> None:
        page = tmp_path / "a.md"
        page.write_text(
            "```python\n# one.py\nprint('$HOME')\n```\n\n```sh\npython3 one.py > out\n```\n```text\nx\n```\n"
        )
        subprocess.run(["bash", "-c", tutorial.script([page])], cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / "out").read_text() == "$HOME\n"

    def test_a_block_without_a_name_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text("```yaml\na: 1\n```\n")
        with pytest.raises(ValueError, match=r"a\.md: a block of yaml must begin with a comment"):
            tutorial.script([tmp_path / "a.md"])
