"""The real US files against separate code: gzip, csv and arithmetic, nothing of what imports them."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from qlib_ext.market.importing.import_bars import Imported, import_bars
from qlib_ext.market.importing.import_settings import ImportSettings

SOURCE = Path(__file__).parents[4] / "shared" / "market" / "us" / "prices"
pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="the real files ../shared/market/us are not here")
SOME = ["AABA", "AAPL", "BUD", "BRK.B", "C", "DUK", "EXPE", "MO", "QQQ", "SCHW", "VOD", "XOM"]


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    paths = {path.name.removesuffix(".csv.gz").upper(): path for path in SOURCE.glob("*.csv.gz")}
    return {code: paths[code] for code in SOME if code in paths}


@pytest.fixture(scope="module")
def imported(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Imported:
    root = tmp_path_factory.mktemp("us")
    (root / "prices").mkdir()
    for path in files.values():
        (root / "prices" / path.name).symlink_to(path)
    return import_bars(root / "prices", root / "store", ImportSettings(region="us", benchmarks=("QQQ",)))


Row = tuple[str, list[float]]


@pytest.fixture(scope="module")
def numbers(files: dict[str, Path]) -> dict[str, list[Row]]:
    """Local day, and open, high, low, close, volume as they stand in the files."""
    rows = {}
    for code, path in files.items():
        with gzip.open(path, "rt") as lines:
            # All of it was stamped at the close in New York: the date of the text is the day.
            rows[code] = [
                (row[0][:10], [float(cell) for cell in row[1:]]) for row in list(csv.reader(lines))[1:]
            ]
    return rows


class TestRealFiles:
    def test_every_number_comes_back(self, imported: Imported, numbers: dict[str, list[Row]]) -> None:
        assert len(numbers) >= 10
        store = imported.store
        days = store.calendar.strftime("%Y-%m-%d").tolist()
        for code, rows in numbers.items():
            by_day = dict(rows)
            nothing = [math.nan] * 5
            # A price of 0 is none; a volume of 0 is one.
            expected = [
                [
                    math.nan if cell == 0 and field < 4 else cell
                    for field, cell in enumerate(by_day.get(day, nothing))
                ]
                for day in days
            ]
            bars = store.read(["open", "high", "low", "close", "volume"], [code])[:, :, 0]
            np.testing.assert_allclose(bars.T, expected, rtol=1e-6, err_msg=code)

    def test_change_is_the_rise_of_the_closes(
        self, imported: Imported, numbers: dict[str, list[Row]]
    ) -> None:
        days = {str(day.date()): index for index, day in enumerate(imported.store.calendar)}
        for code, rows in numbers.items():
            change = imported.store.read(["change"], [code])[0, :, 0]
            assert np.isnan(change[days[rows[0][0]]])
            found = [change[days[day]] for day, _ in rows[1:]]
            expected = [now[3] / before[3] - 1 for (_, before), (_, now) in itertools.pairwise(rows)]
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=code)

    def test_zeros_are_counted(self, imported: Imported, numbers: dict[str, list[Row]]) -> None:
        for column, field in enumerate(("open", "high", "low")):
            zeros = sum(row[column] == 0 for rows in numbers.values() for _, row in rows)
            assert zeros > 1
            assert any(note.startswith(f"{zeros:,} prices of 0 in `{field}`") for note in imported.notes)

    def test_the_calendar_is_that_of_new_york(
        self, imported: Imported, numbers: dict[str, list[Row]]
    ) -> None:
        """No day of the files is outside of it, and none of it is without a row."""
        found = sorted({day for rows in numbers.values() for day, _ in rows})
        assert imported.store.calendar.strftime("%Y-%m-%d").tolist() == found

    def test_membership(self, imported: Imported, numbers: dict[str, list[Row]]) -> None:
        spells = imported.store.membership("stocks").set_index("instrument")
        assert sorted(spells.index) == sorted(set(numbers) - {"QQQ"})
        for code, spell in spells.iterrows():
            rows = numbers[str(code)]
            assert [str(spell[end].date()) for end in ("start", "end")] == [rows[0][0], rows[-1][0]]
