"""A first session as it was: every command, on an environment with nothing but the wheel, and what it said.

    make dist
    python -m website.transcript FOLDER dist/*.whl

FOLDER must not be there yet. It gets an environment of its own, the wheel, and then the commands: the install, those of the
tutorial, and REST. What they said becomes `docs/transcript.md`. Any command that fails ends it, and the page stays as it was.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from website import tutorial

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "transcript.md"
HOME = "/home/you"  # in the place of FOLDER
LONGEST = 40  # lines of one answer
KEPT = (24, 12)  # first and last lines of a longer one
MARK = "\x1e"
HEAD = """# A first session

All that `qlib-ext` does, as it went on a machine that had nothing but Python and the wheel: {system}, Python {python},
{cores} cores, no GPU. First the install, then the commands of the [tutorial](tutorial/first-run.md), then the rest. The market is
made up, and so is every figure. A longer answer is cut in the middle. `python -m website.transcript` makes this page.
"""
INSTALL = """
python3 -m venv env
. env/bin/activate
pip install --quiet --quiet "$(ls *.whl)[portfolio,search]"
"""
CHECKED = """
qlib-ext doctor
"""
# Title -> blocks of bash, in the folder where the tutorial ends.
REST: dict[str, Sequence[str]] = {
    "Looking for the future": (
        "unset SEGMENTS\nqlib-ext lookahead workflows/lightgbm_csi300.yaml --dates 3 --refits 1",
    ),
    "Each feature alone": (
        "qlib-ext factors workflows/lightgbm_alpha158_csi300.yaml --segment valid --top 5",
    ),
    "Runs together": (
        "qlib-ext ensemble lopsided squares --name both",
        "qlib-ext soup $(ls reports/runs | grep squares- | cut -d - -f 2) --name soup",
        "qlib-ext index",
    ),
    "A search": (
        """\
cat > space.yaml << END
space:
  LEARNING_RATE: {choice: [0.001, 0.004]}
sampler: grid
rungs: [{N_EPOCHS: 1, HIDDEN_SIZE: 16}]
END
qlib-ext search workflows/stl_csi300.yaml --space space.yaml""",
    ),
    "A run that anyone may execute again": (
        "qlib-ext bundle squares --out squares.bundle.zip",
        "qlib-ext verify squares.bundle.zip",
    ),
    "More data": (
        "qlib-ext data update mine prices.csv",
        "qlib-ext data sample --out qlib_bin --stocks 20 --start 2017-01-03 --end 2017-12-29",
        """\
tar czf qlib_bin.tar.gz qlib_bin
qlib-ext data fetch archive --out fetched --option file=qlib_bin.tar.gz --start 2017-01-03 --end 2017-12-29""",
        """\
echo 'date,code,market_value' > values.csv
echo "2017-01-03,$(head -1 qlib_bin/instruments/csi300.txt | cut -f 1),1e9" >> values.csv
qlib-ext data side-data fetched market_value values.csv --replace""",
    ),
    "Without a network": (
        'qlib-ext data download --out bought || echo "exit status $?"',
        'qlib-ext send || echo "exit status $?"',
    ),
    "A folder that was moved": (
        "cd .. && mv quickstart study && cd study\nqlib-ext relocate ../quickstart .",
        "qlib-ext report squares --lang zh",
    ),
    "A folder of your own": ("qlib-ext init ../another",),
}


@dataclass(frozen=True)
class Step:
    """A block of bash; `title` where a part of the page begins with it, and what the page shows in its place."""

    title: str
    shown: str
    run: str
    language: str = "sh"


def steps() -> list[Step]:
    """All that is done, in its order."""
    found = [Step("Install", INSTALL, INSTALL), Step("Is all there?", CHECKED, CHECKED)]
    for page in tutorial.pages():
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        for language, text, run in tutorial.parts(page):
            found.append(Step(title, text, run, language))
            title = ""
    for title, blocks in REST.items():
        found += [Step("" if index else title, text, text) for index, text in enumerate(blocks)]
    return found


def script(of: Sequence[Step]) -> str:
    """One script of bash, which prints a mark and the number of the step before each."""
    marked = (f"printf '{MARK}%s\\n' {number}\n{step.run}" for number, step in enumerate(of))
    return "set -euo pipefail\n" + "\n".join(marked) + f"\nprintf '{MARK}%s\\n' {len(of)}\n"


def page(of: Sequence[Step], output: str, folder: str, head: str) -> str:
    """The page, of what the script printed.

    Parameters
    ----------
    of, output
        The steps, and all that came out.
    folder
        Where it ran, which the page calls `/home/you`.
    head
        How the page begins.

    Raises
    ------
    ValueError
        If a step did not come to its end.
    """
    said = re.split(rf"^{MARK}\d+\n", output.replace(folder, HOME), flags=re.MULTILINE)[1:]
    if len(said) != len(of) + 1:
        raise ValueError(f"step {len(said) - 1} failed:\n{of[len(said) - 1].run}\n{said[-1]}")
    parts = [head]
    for number, step in enumerate(of):
        if step.title:
            parts.append(f"\n## {step.title}\n")
        parts.append(f"\n```{step.language}\n{step.shown.strip()}\n```\n")
        if answer := _shortened(said[number]):
            parts.append(f"\n```text\n{answer}\n```\n")
    return "".join(parts)


def _shortened(answer: str) -> str:
    lines = [line.rstrip() for line in answer.strip("\n").splitlines()]
    if len(lines) > LONGEST:
        first, last = KEPT
        lines = [*lines[:first], f"[... {len(lines) - first - last} lines]", *lines[-last:]]
    return "\n".join(lines)


def main(folder: Path, wheel: Path) -> None:
    """Run all of it, and write the page."""
    folder.mkdir(parents=True)
    shutil.copy(wheel, folder)
    of = steps()
    dropped = ("PYTHONPATH", "VIRTUAL_ENV", "MLFLOW_TRACKING_URI")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    with (folder / "said.txt").open("w+", encoding="utf-8") as file:
        subprocess.run(
            ["bash", "-c", script(of)],
            cwd=folder,
            env={**environment, "COLUMNS": "110"},
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
        file.seek(0)
        output = file.read().replace(platform.release(), platform.release().partition("-")[0])
    head = HEAD.format(
        system=platform.system(), python=platform.python_version(), cores=len(os.sched_getaffinity(0))
    )
    PAGE.write_text(page(of, output, str(folder.resolve()), head), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
