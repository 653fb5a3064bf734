"""The examples of the docstrings and of docs/python.md run, on a tiny market; what they train is trained once."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.contrib.model.gbdt import LGBModel

import qlib_ext.api as qe
from qlib_ext.strategy.topk_dropout import TopkDropout

ROOT = Path(__file__).parent.parent.parent
MODULES = [f"qlib_ext.api.{module.name}" for module in pkgutil.iter_modules(qe.__path__)]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
COMING_FROM = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
SEGMENTS = (
    "{train: [2015-11-02, 2016-03-31], valid: [2016-04-01, 2016-04-29], test: [2016-05-03, 2016-06-30]}"
)


@pytest.fixture
def checked(notebook: Path, trained: qe.Run, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The tasks that would be run: each is checked as a whole, and stands for the run that there is."""
    tasks: list[dict[str, Any]] = []

    def train(task: dict[str, Any], name: str) -> SimpleNamespace:
        tasks.append(task)
        return SimpleNamespace(id=trained.id)

    monkeypatch.setattr("qlib_ext.workflow.run.task_train", train)
    shutil.copytree(ROOT / "workflows", notebook / "workflows", dirs_exist_ok=True)
    monkeypatch.setenv("SEGMENTS", SEGMENTS)
    return tasks


@pytest.mark.parametrize("name", [*MODULES, "qlib_ext.config.described"])
def test_docstrings(name: str, checked: list[dict[str, Any]], scores: pd.Series) -> None:
    store = qe.Store("cn")
    known = {"store": store, "scores": scores, "TopkDropout": TopkDropout, "LGBModel": LGBModel, "np": np}
    if name.endswith((".dataset", ".store")):
        known["data"] = store.dataset("csi300")
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(module, extraglobs=known, optionflags=flags)
    assert found.failed == 0


def test_the_page(checked: list[dict[str, Any]]) -> None:
    """Each job is there, and none takes more than three lines beside imports."""
    known: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE):
        lines = [line for line in code.splitlines() if line and not line.startswith(("import ", "from "))]
        assert len(lines) <= 3
        exec(code, known)  # noqa: S102 - our own page
    models = [task["model"]["class"].rpartition(".")[2] for task in checked]
    assert models == [
        "MultiTaskModel",
        "LGBModel",
        "MultiTaskModel",
        "GivenScores",
        "GivenScores",
        "GivenScores",
    ]
    assert known["day"].shape == (17, 362)
    assert set(known["listed"].columns) >= {"rank", "score", "close"}


def test_the_page_for_those_who_come_from_elsewhere(checked: list[dict[str, Any]]) -> None:
    known: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", COMING_FROM, flags=re.DOTALL | re.MULTILINE):
        exec(code, known)  # noqa: S102 - our own page
    assert known["daily"].index[0] == pd.Timestamp("2016-03-01")
    assert known["beta"] == pytest.approx(1)
    assert known["deepest"] < 0
    assert [task["model"]["class"].rpartition(".")[2] for task in checked] == ["GivenScores"] * 2
