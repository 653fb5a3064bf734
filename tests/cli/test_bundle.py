from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.verify import bundle
from qlib_ext.verify.bundle import Written
from tests.report.comparison.conftest import Store

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`qlib-ext bundle` on a store with a run, which writes no more than a file."""
    store = Store(tmp_path)
    run_id = store.run("mine", experiment="a b")

    def write(client: Any, run: Any, out: Path, store: Path | None) -> Written:
        out.write_bytes(b"zip")
        index: dict[str, Any] = {
            "data": {"fingerprint": "f"},
            "scores": "s",
            "orders": None,
            "runs": {run_id: {"artifacts": {"x": {}}}},
        }
        return Written(out, index, ("a note",))

    monkeypatch.setattr(bundle, "write_bundle", write)
    return functools.partial(command, "bundle", "mine", "--tracking-uri", store.uri)


def test_the_file_is_named_after_experiment_and_run(run: Command, tmp_path: Path) -> None:
    status, out, err = run()
    assert status == 0
    path = Path(out.splitlines()[-1])
    assert path.parent == tmp_path
    assert path.name.startswith("a-b-")
    assert path.name.endswith(".bundle.zip")
    assert "note: a note" in err
    assert f"Next: qlib-ext verify {path.name}" in err
    document = json.loads(run("--json", "--out", "b.zip")[1])
    assert document["bundle"] == str(tmp_path / "b.zip")
    assert (document["scores"], document["orders"], document["tables"]) == ("s", None, 1)


def test_without_minisign_nothing_is_written(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    status, _, err = run("--out", "b.zip", "--sign", "key")
    assert status == 2
    assert "by the program minisign, found none" in err
    assert not (tmp_path / "b.zip").exists()
