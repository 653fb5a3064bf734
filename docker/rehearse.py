"""The steps of a Dockerfile done in an empty folder, for a machine without an engine.

    python docker/rehearse.py docker/Dockerfile [--folder DIR] [--list]

COPY, ENV, WORKDIR, RUN and CMD are done below the folder, which stands for the image's root: a path such as /opt/venv is
one below it. What changes a system (packages of Debian's, users, owners) is told and left out. It needs Python alone.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OF_SYSTEM = ("apt-get ", "rm -rf /var/", "useradd ", "chown ")
PLACES = re.compile(r"(?<![\w.$])/(?=(?:app|opt|mlflow|tmp|etc)\b)")  # of the image


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """(instruction, arguments), with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line:
            name, _, arguments = line.partition(" ")
            yield name, arguments


class Rehearsal:
    """An image's root as a folder, its environment and its working directory."""

    def __init__(self, folder: Path, *, only_list: bool = False):
        self.folder, self.only_list = folder, only_list
        self.here = folder
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE")
        self.environment = {
            key: value for key, value in os.environ.items() if key in kept or key.startswith("PIP_")
        }

    def place(self, text: str) -> str:
        """A text with the image's paths as paths below the folder."""
        return PLACES.sub(f"{self.folder}/", text)

    def do(self, name: str, arguments: str) -> None:
        """One instruction; what fails ends the rehearsal."""
        if name == "WORKDIR":
            self.here = Path(self.place(arguments))
            self.here.mkdir(parents=True, exist_ok=True)
        elif name == "ENV":
            for word in shlex.split(arguments):
                key, _, value = word.partition("=")
                self.environment[key] = self.place(value).replace("$PATH", self.environment["PATH"])
        elif name == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                self._copy(ROOT / source, target)
        elif name == "RUN":
            for step in map(str.strip, arguments.split("&&")):
                self._run(step)
        elif name == "CMD":
            self._run(shlex.join(re.findall(r'"([^"]*)"', arguments)))
        elif name not in ("FROM", "ARG", "USER"):
            raise SystemExit(f"{name} is not known here: teach it to docker/rehearse.py")

    def _copy(self, source: Path, target: str) -> None:
        self._tell(f"COPY {source.relative_to(ROOT)}")
        if self.only_list:
            return
        into = self.here / self.place(target)
        if source.is_dir():
            shutil.copytree(source, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            return
        into = into / source.name if target.endswith("/") else into
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, into)

    def _run(self, step: str) -> None:
        if step.startswith(OF_SYSTEM):
            self._tell(f"left out, as it changes the system: {step}")
            return
        self._tell(step)
        if not self.only_list:
            subprocess.run(["sh", "-ec", self.place(step)], cwd=self.here, env=self.environment, check=True)

    def _tell(self, step: str) -> None:
        sys.stdout.write(f"# {step}\n")
        sys.stdout.flush()


def main() -> None:
    """Do the steps of the Dockerfile that the command line names."""
    parser = argparse.ArgumentParser(description="The steps of a Dockerfile in an empty folder.")
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("--folder", type=Path, help="Kept afterwards; a temporary one by default.")
    parser.add_argument("--list", action="store_true", help="Tell the steps, and do none.")
    given = parser.parse_args()
    text = given.dockerfile.read_text(encoding="utf-8")
    if given.folder is not None and given.folder.exists() and any(given.folder.iterdir()):
        parser.error(f"--folder must be empty, found something in {given.folder}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rehearsal = Rehearsal(folder, only_list=given.list)
        for name, arguments in instructions(text):
            rehearsal.do(name, arguments)


if __name__ == "__main__":
    main()
