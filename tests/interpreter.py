"""A Python that has imported what takes seconds, and is forked for each program that a test runs.

    python tests/interpreter.py

What a program does from there on, it does as in a process that was started for it: this package itself is imported in
the fork, and the fork ends as an interpreter does. A test of how a process starts starts one of its own.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HEAVY = (
    "lightgbm",
    "matplotlib.backends.backend_agg",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.tracking.sqlalchemy_store",
    "qlib.cli.run",
    "qlib.contrib.model.gbdt",
    "qlib.contrib.strategy",
    "scipy.stats",
    "torch._dynamo",
)


def qrun(*sections: str) -> tuple[str, str]:
    """The arguments of a `qrun` that draws, beside its report, the charts of these sections alone.

    To draw those of all sections takes longer than everything else that a little run does.
    """
    code = f"""
import sys
sys.argv[0] = "qrun"  # which this package looks for, to check the workflow before a run begins
from qlib.cli.run import run
from qlib_ext.report.document import Document
every = Document.pictures
def some(self, run):
    chosen = [section for section in self.sections if type(section).__name__ in {sections!r}]
    return every(Document(chosen), run) if chosen else {{}}
Document.pictures = some
run()
"""
    return "-c", code


class Interpreter:
    """Runs programs as `subprocess.run([sys.executable, ...], capture_output=True, text=True)` does, in forks."""

    def __init__(self) -> None:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**inherited, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self, *arguments: str, cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m MODULE ...`, `python -c CODE ...` or `python FILE ...`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            asked = {"arguments": arguments, "cwd": str(cwd), "env": dict(env), "output": folder}
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            said = [(Path(folder) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess([*arguments], code, *said)

    def close(self) -> None:
        self._process.communicate()


def _serve() -> Sequence[str]:
    """Fork for each program that is asked for; in the fork, return it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Qlib prints what it does not find when it is imported
    for name in HEAVY:
        __import__(name)
    sys.stdout.flush()  # or each fork would say it again
    gc.freeze()  # what is there stays there: a fork has no reason to copy it
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        process = os.fork()
        if process == 0:
            answers.close()
            os.chdir(asked["cwd"])
            os.environ.clear()
            os.environ.update(asked["env"])
            for stream, name in enumerate(("/dev/null", "stdout", "stderr")):
                file = os.open(Path(asked["output"]) / name, os.O_RDWR | os.O_CREAT, 0o600)
                os.dup2(file, stream)
                os.close(file)
            return asked["arguments"]
        _, status = os.waitpid(process, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
    sys.exit(0)


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose folders have names of packages
    kind, *rest = _serve()
    program = rest.pop(0) if kind in ("-m", "-c") else ""
    sys.path.insert(0, {"-m": str(Path.cwd()), "-c": ""}.get(kind, str(Path(kind).parent)))
    sys.argv = [program if kind == "-m" else kind, *rest]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(program, {"__name__": "__main__"})  # noqa: S102 - as `python -c` does
    else:
        runpy.run_path(kind, run_name="__main__")
