"""The commands of the documentation are those of the program, and the first session is one of all of them."""

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
from website import transcript, tutorial

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


class TestTutorial:
    def test_a_file_is_written_and_a_command_is_run(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text(
            "```python\n# one.py\nprint('$HOME')\n```\n\n```sh\npython3 one.py > out\n```\n```text\nx\n```\n"
        )
        script = "".join(run for _, _, run in tutorial.parts(tmp_path / "a.md"))
        subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
        assert (tmp_path / "out").read_text() == "$HOME\n"

    def test_a_block_without_a_name_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "a.md").write_text("```yaml\na: 1\n```\n")
        with pytest.raises(ValueError, match=r"a\.md: a block of yaml must begin with a comment"):
            list(tutorial.parts(tmp_path / "a.md"))


class TestTranscript:
    def test_it_is_of_the_steps_as_they_are(self) -> None:
        """A change of the tutorial or of the rest asks for another run: `python -m website.transcript`."""
        blocks = re.findall(
            r"^```(?:sh|python|yaml)\n(.*?)\n```$",
            transcript.PAGE.read_text("utf-8"),
            re.DOTALL | re.MULTILINE,
        )
        assert blocks == [step.shown.strip() for step in transcript.steps()]

    def test_it_has_every_command(self) -> None:
        told = re.findall(
            r"^\| `qlib-ext ([a-z -]+)` \|", (ROOT / "docs" / "cli.md").read_text("utf-8"), re.MULTILINE
        )
        used = {" ".join(call) for call in calls(transcript.PAGE)}
        assert [name for name in told if not any(f"{call} ".startswith(f"{name} ") for call in used)] == []

    def test_steps_share_a_shell_and_each_has_its_answer(self, tmp_path: Path) -> None:
        steps = [
            transcript.Step("First", "shown", "cd /; export A=b"),
            transcript.Step("", "a", "echo $A; seq 100 >&2"),
            transcript.Step("Last", "b", f"echo {tmp_path}/x"),
        ]
        said = subprocess.run(
            ["bash", "-c", transcript.script(steps)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout
        page = transcript.page(steps, said, str(tmp_path), "# head\n")
        first = "b\n" + "".join(f"{number}\n" for number in range(1, 24))
        last = "".join(f"{number}\n" for number in range(89, 101))
        answer = f"{first}[... 65 lines]\n{last}"
        assert page == (
            "# head\n\n## First\n\n```sh\nshown\n```\n\n```sh\na\n```\n"
            f"\n```text\n{answer}```\n\n## Last\n\n```sh\nb\n```\n\n```text\n/home/you/x\n```\n"
        )

    def test_a_step_that_fails_is_named(self) -> None:
        steps = [
            transcript.Step("", "a", "true"),
            transcript.Step("", "b", "echo no; false"),
            transcript.Step("", "c", "true"),
        ]
        said = subprocess.run(
            ["bash", "-c", transcript.script(steps)], check=False, capture_output=True, text=True
        ).stdout
        with pytest.raises(ValueError, match="step 1 failed:\necho no; false\nno\n"):
            transcript.page(steps, said, "/nowhere", "")
