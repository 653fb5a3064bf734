from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.importing.import_settings import FILE, ImportSettings
from qlib_ext.market.store import StoreError

FULL = ImportSettings(
    region="us",
    columns={"close": "Last", "vwap": ""},
    adjustment="factor",
    volume_unit=100.0,
    timezone="America/New_York",
    pattern="*.csv",
    benchmarks=("QQQ", "SPY"),
)


class TestSaved:
    @pytest.mark.parametrize("settings", [ImportSettings(), FULL])
    def test_it_comes_back(self, tmp_path: Path, settings: ImportSettings) -> None:
        settings.save(tmp_path, source="/some/where", notes=("a note",))
        assert ImportSettings.load(tmp_path) == settings
        content = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
        assert (content["source"], content["notes"]) == ("/some/where", ["a note"])

    def test_a_store_without_one(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"import.json` is not there: the store was not made by"):
            ImportSettings.load(tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("{", "cannot be read"),
            ("[]", "is not of version 1"),
            ('{"version": 2, "settings": {}}', "is not of version 1"),
            ('{"version": 1, "settings": {"colour": "red"}}', "is not of version 1"),
            (
                '{"version": 1, "settings": {"region": "uk"}}',
                "settings that cannot be: `region` must be one of",
            ),
            ('{"version": 1, "settings": {"columns": 3}}', "settings that cannot be"),
        ],
    )
    def test_one_that_cannot_be(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / FILE).write_text(content)
        with pytest.raises(StoreError, match=message):
            ImportSettings.load(tmp_path)


class TestChecks:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"region": "us-east"}, "`region` must be one of cn, us, found 'us-east'"),
            (
                {"adjustment": "factors"},
                r"`adjustment` must be one of .*, found 'factors' \(did you mean factor",
            ),
            ({"volume_unit": 0}, "`volume_unit` must be above 0, found 0"),
            (
                {"timezone": "New York"},
                "`timezone` must be a time zone such as Asia/Shanghai, found 'New York'",
            ),
            ({"universe": "all"}, "`universe` must be a file name of letters and digits other than `all`"),
            ({"universe": "../x"}, "`universe` must be a file name"),
            (
                {"columns": {"Close": "Last"}},
                "fields in lower case such as close or market_value, found 'Close'",
            ),
            ({"columns": {"close": ""}}, "must name a column of `close`"),
        ],
    )
    def test_each_option(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            ImportSettings(**options)
