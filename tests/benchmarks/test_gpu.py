"""The prepared hour on a GPU, rehearsed on the CPU in its smallest form: every part runs and says what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import correctness
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.correctness import _apart, steps
from benchmarks.gpu.panel_file import PanelFile, pack, read
from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from tests.data.conftest import handler_kwargs, make_market, read_with_qlib

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DailyPanelDataset:
    tiny = make_market()
    read_with_qlib(tiny.write(tmp_path_factory.mktemp("gpu") / "store"))
    return DailyPanelDataset(
        handler={"class": "qlib_ext.data.handlers.panel.PanelHandler", "kwargs": handler_kwargs(tiny)},
        segments={name: [*tiny.dates(name)] for name in tiny.segments},
    )


@pytest.fixture(scope="module")
def path(dataset: DailyPanelDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("packed") / "panel.safetensors"
    stocks = np.arange(len(dataset.handler.panel.instruments)) % 3 - 1
    pack(dataset, file, np.tile(stocks, (len(dataset.handler.panel.calendar), 1)))
    return file


@pytest.fixture(scope="module")
def file(path: Path) -> PanelFile:
    return read(path)


@pytest.mark.parametrize("segment", ["train", "valid", "test"])
def test_a_file_gives_the_days_of_its_dataset(
    dataset: DailyPanelDataset, file: PanelFile, segment: str
) -> None:
    expected, found = dataset.panels(segment), file.panels(segment, CPU)
    assert len(expected) == len(found) > 0
    for one, other in zip(expected, found, strict=True):
        assert one.date == other.date
        torch.testing.assert_close(one.features, other.features, rtol=0, atol=0)
        torch.testing.assert_close(one.instruments, other.instruments)
        for name in ("RETURN", "MOMENTUM"):
            for kind in ("labels", "raw_labels"):
                torch.testing.assert_close(
                    getattr(one, kind)[name], getattr(other, kind)[name], rtol=0, atol=0, equal_nan=True
                )
        assert other.concepts is not None
        assert other.concepts.shape == (len(one), 2)
        assert set(other.concepts.sum(dim=1).tolist()) <= {0.0, 1.0}


def test_what_is_no_panel_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no file of panels")
    with pytest.raises(UserError, match="is no panel file"):
        read(tmp_path / "x")


def test_market_values_keep_their_size(
    dataset: DailyPanelDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worth = np.full(dataset.handler.panel.present.shape, 3e11, np.float32)  # too large for half precision
    monkeypatch.setattr(dataset._side, "market_value", worth)
    pack(dataset, tmp_path / "x.safetensors")
    found = read(tmp_path / "x.safetensors")
    assert (found.market_value[found.present] == worth[0, 0]).all()


@pytest.mark.parametrize("name", ["predictions", "losses", "gradient"])
def test_a_step_without_a_number_is_not_right(
    name: str, file: PanelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"predictions": 0.0, "losses": 0.0, "gradient": 0.0, name: np.nan}
    monkeypatch.setattr(correctness, "_compared", lambda *_: found)
    assert not any(row["right"] for row in steps(file, CPU, 8, [("LSTM", "EW")]))


def test_how_far_apart_is_in_units_of_the_largest() -> None:
    assert _apart(torch.tensor([4.0, -8.0]), torch.tensor([4.0, -6.0])) == 0.25
    assert _apart(torch.zeros(2), torch.tensor([0.0, 3.0])) == 3.0


def test_the_whole_script_on_the_cpu(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    status = main(
        ["run", str(path), "--out", str(tmp_path), "--tiny", "--hidden-size", "8", "--minutes", "0.2"]
    )
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert status == 0, found["steps"]
    assert [(row["backbone"], row["right"]) for row in found["steps"]] == [
        ("LSTM", True),
        ("LSTM", True),
        ("HIST", True),
        ("HIST", True),
    ]
    assert all(row["repeated"] is True and row["resumed"] is True for row in found["resume"])
    assert {row["backbone"] for row in found["epochs"]} == {"LSTM", "GATs", "HIST"}
    assert all(row["steps"] > 0 and row["authors"] > 0 for row in found["epochs"])
    assert {row["way"] for row in found["side_by_side"]} == {"streams", "processes"}
    assert all(row["steps_per_second"] > 0 for row in found["side_by_side"])
    assert found["MiM-StocR"][0]["valid/rank_ic"] == pytest.approx(found["MiM-StocR"][0]["valid/rank_ic"])
    assert found["STL"][0]["train/loss/score"] > 0
    said = (tmp_path / "gpu.md").read_text()
    assert "A rehearsal on the CPU" in said
    assert "4 of 4 steps are those of the CPU" in said
