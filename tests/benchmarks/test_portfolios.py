"""The page of the portfolios is what the kept runs say, and every portfolio can be built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.portfolios.__main__ import CONFIGS
from benchmarks.portfolios.report import missing, slug, write_report
from benchmarks.portfolios.trading import strategy_of
from qlib_ext.files import load_yaml, read_text

PAGE = Path(__file__).parents[2] / "reports" / "portfolio"
PORTFOLIOS = load_yaml(read_text(CONFIGS))


@pytest.mark.parametrize("name", PORTFOLIOS["portfolios"])
def test_each_can_be_built(name: str) -> None:
    index = pd.MultiIndex.from_product([pd.DatetimeIndex(["2020-01-02"]), ["SH600000"]])
    scores = pd.Series([1.0], index.set_names(["datetime", "instrument"]))
    assert strategy_of(PORTFOLIOS["portfolios"][name], scores) is not None


def test_names_have_folders_of_their_own() -> None:
    names = [*PORTFOLIOS["portfolios"]]
    assert len({slug(name) for name in names}) == len(names)
    assert {*PORTFOLIOS["ladder"]} <= {*names}


def test_what_was_not_traded_is_said() -> None:
    portfolios = {"best": {}, "best, monthly": {}, "equal": {"scores": False}}
    everything = [
        ("a", "best"),
        ("a", "best, monthly"),
        ("b", "best"),
        ("b", "best, monthly"),
        ("none", "equal"),
    ]
    assert missing(everything, portfolios) == ""
    assert missing(everything[:3], portfolios) == "Not traded:\n\n- b: `best, monthly`\n- none: `equal`\n"


def test_the_page_is_made_of_the_runs(tmp_path: Path) -> None:
    shutil.copytree(PAGE, tmp_path / "portfolio")
    (tmp_path / "portfolio" / "README.md").unlink()
    write_report(tmp_path / "portfolio", PORTFOLIOS)
    assert (tmp_path / "portfolio" / "README.md").read_text() == (PAGE / "README.md").read_text()
