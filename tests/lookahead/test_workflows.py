"""No shipped workflow knows the future, on sample markets and at 200 dates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import qlib

from qlib_ext.lookahead.audit import audit
from qlib_ext.market.importing.import_bars import import_bars
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.market.synthetic.us_sample import USSampleMarket
from qlib_ext.workflow.read import read_workflow

WORKFLOWS = Path(__file__).parent.parent.parent / "workflows"
ALL = "LOOKAHEAD_WORKFLOWS"  # set, all of them are looked at, in some minutes; else one is
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.yaml"))
SMALL = {"DEVICE": "cpu", "HIDDEN_SIZE": "4", "WIDTH": "8", "CARDINALITY": "2", "PANEL_CACHE": "off"}
SMALL |= {"FOLD_TRAIN": "6m", "FOLD_VALID": "3m", "FOLD_END": "2016-12-31"}


def cn(folder: Path) -> Path:
    SampleMarket(seed=3, stocks=20, start="2014-03-03", end="2017-06-30").write(folder / "cn")
    return folder / "cn"


def us_sample(folder: Path) -> Path:
    USSampleMarket(seed=3, stocks=20, start="2007-10-01", end="2009-04-30").write(folder / "us")
    return folder / "us"


def us_imported(folder: Path) -> Path:
    """A sample market as a US vendor writes it, imported."""
    made, _ = SampleMarket(seed=3, stocks=20, start="2009-06-01", end="2012-04-30").write(folder / "made")
    names = {"open": "Open", "high": "High", "low": "Low", "close": "Close", "volume": "Volume"}
    (folder / "prices").mkdir()
    for code in made.instruments():
        if code in ("SH000016", "SH000903"):
            continue
        bars = pd.DataFrame(made.read(list(names), [code])[:, :, 0].T, columns=list(names.values()))
        table = bars.assign(Date=made.calendar.strftime("%Y-%m-%d")).dropna()
        table.to_csv(folder / "prices" / f"{'QQQ' if code == 'SH000300' else code}.csv", index=False)
    settings = ImportSettings(region="us", calendar="data", benchmarks=("QQQ",))
    return import_bars(folder / "prices", folder / "store", settings).store.root


def market(name: str, folder: Path) -> Path:
    if name.startswith("resnext"):
        return us_sample(folder)
    return us_imported(folder) if name.endswith("_us") else cn(folder)


@pytest.mark.parametrize("name", [name for name in NAMES if os.environ.get(ALL) or name == "mimstocr_csi300"])
def test_it_raises_no_alarm(name: str, tmp_path: Path) -> None:
    variables = {**SMALL, "QLIB_DATA": str(market(name, tmp_path))}
    config: dict[str, Any] = read_workflow(WORKFLOWS / f"{name}.yaml", variables)
    settings = config["qlib_init"]
    qlib.init(provider_uri=settings["provider_uri"], region=settings["region"], kernels=1, logging_level=40)
    result = audit(config["task"], dates=200, refits=2)
    assert [finding.message for finding in result.findings] == []
    assert result.dates == 200
    looked = {check.name: check.dates for check in result.checks}
    assert looked["dates"] == looked["splits"] == 200
    assert "scores" in next(check.what for check in result.checks if check.name == "dates")
