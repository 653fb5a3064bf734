"""The look-ahead audit, with the weights of finished runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import qlib
import yaml
from mlflow.tracking import MlflowClient

from qlib_ext.cli import main as cli
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.tracking.runs import find_run


@pytest.mark.parametrize("name", ["mimstocr_csi300", "lightgbm_csi300"])
def test_the_weights_of_a_run_are_looked_at(
    name: str,
    client: MlflowClient,
    trained: QlibStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").mkdir()
    task: Any = TrainedRun.open(client, find_run(client, name), tmp_path / "run").config
    settings = {"provider_uri": str(trained.root), "region": "cn", "kernels": 1}
    (tmp_path / "w.yaml").write_text(yaml.safe_dump({"qlib_init": settings, "task": {**task, "record": []}}))
    arguments = ["lookahead", "w.yaml", "--run", name, "--dates", "6", "--refits", "1"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["qlib-ext", *arguments, "--tracking-uri", client.tracking_uri])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    qlib.init(provider_uri=str(trained.root), region="cn", kernels=1)
    shown = capsys.readouterr()
    assert caught.value.code in (0, None), shown.out + shown.err
    assert "0 alarms; 6 dates" in shown.out
    assert "statistics" not in shown.err
    assert "training" not in shown.out.partition("looked at")[2].replace(
        "training rows", ""
    )  # nothing was trained
