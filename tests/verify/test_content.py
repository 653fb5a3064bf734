from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from qlib_ext.checks import UserError
from qlib_ext.verify import content
from qlib_ext.verify.content import Content, first_difference, read_content

DAYS = pd.MultiIndex.from_product(
    [pd.to_datetime(["2016-09-05", "2016-09-06"]), ["SH600000", "SZ000001"]], names=["datetime", "instrument"]
)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[pd.DataFrame], Content]:
    """A table written and read again."""

    def written(table: pd.DataFrame) -> Content:
        table.to_parquet(tmp_path / "table.parquet")
        return read_content(tmp_path / "table.parquet", "a/table.parquet")

    return written


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"score": [0.1, 0.2, 0.3, np.nan], **columns}, index=DAYS)


class TestDigest:
    def test_it_is_of_what_a_table_says_and_not_of_its_bytes(self, tmp_path: Path) -> None:
        table().to_parquet(tmp_path / "a.parquet", compression="gzip")
        table().to_parquet(tmp_path / "b.parquet", compression="snappy", row_group_size=2)
        digests = {read_content(tmp_path / name, name).digest() for name in ("a.parquet", "b.parquet")}
        assert len(digests) == 1
        assert (tmp_path / "a.parquet").read_bytes() != (tmp_path / "b.parquet").read_bytes()

    @pytest.mark.parametrize(
        "other",
        [
            table().assign(score=[0.1, 0.2, np.nextafter(0.3, 1), np.nan]),
            table().rename(columns={"score": "scores"}),
            table().astype("float32"),
            table().iloc[:3],
            table().iloc[[1, 0, 2, 3]],
            table().rename(index={"SH600000": "SH600001"}),
        ],
    )
    def test_another_bit_name_kind_row_or_order_is_another(
        self, read: Callable[[pd.DataFrame], Content], other: pd.DataFrame
    ) -> None:
        assert read(other).digest() != read(table()).digest()

    def test_the_sign_of_zero_and_the_bits_of_nan_say_nothing(
        self, read: Callable[[pd.DataFrame], Content]
    ) -> None:
        strange = np.array([0x7FF8_0000_0000_0001], dtype="u8").view("f8")[0]
        one, two = (table().assign(score=[zero, 1, 2, nan]) for zero, nan in ((0.0, np.nan), (-0.0, strange)))
        assert read(one).digest() == read(two).digest()
        assert first_difference("x", read(one), read(two)) is None

    def test_what_names_a_run_or_the_clock_is_left_out(self, tmp_path: Path) -> None:
        found = []
        for run_id, seconds in (("a", 1.0), ("b", 2.0)):
            pd.DataFrame({"run_id": [run_id], "seconds/train": [seconds], "loss": [0.5]}).to_csv(
                tmp_path / "t.csv"
            )
            (tmp_path / "t.json").write_text(
                json.dumps([{"run_id": run_id, "notes": [f"of {run_id}"], "loss": 1}])
            )
            found.append([read_content(tmp_path / name, name).digest() for name in ("t.csv", "t.json")])
        assert found[0] == found[1]

    def test_weights_and_lines_of_text(self, tmp_path: Path) -> None:
        save_file({"b": np.ones(2, "f4"), "a": np.zeros((1, 2), "f4")}, tmp_path / "w.safetensors")
        found = read_content(tmp_path / "w.safetensors", "w.safetensors")
        assert found.keys["tensor"].tolist() == ["a", "a", "b", "b"]
        (tmp_path / "t.txt").write_text("one\ntwo\n")
        assert read_content(tmp_path / "t.txt", "t.txt").values["text"].tolist() == ["one", "two", ""]


class TestDifference:
    def test_the_first_day_and_stock_are_named_with_both_values(
        self, read: Callable[[pd.DataFrame], Content]
    ) -> None:
        now = table(rank=[1, 2, 1, 2]).assign(score=[0.1, 0.25, 0.4, np.nan])
        found = first_difference("scores", read(table(rank=[1, 2, 1, 2])), read(now))
        assert found is not None
        assert str(found) == "scores: 2016-09-05 SZ000001, score: 0.2 in the bundle, 0.25 here"
        assert found.cells == 2
        assert found.largest == pytest.approx(0.1 / 0.3)

    def test_a_difference_is_measured_by_the_spread_where_a_number_is_small(
        self, read: Callable[[pd.DataFrame], Content]
    ) -> None:
        old, new = table(x=[0.0, 2.0, 0.0, 2.0]), table(x=[1e-6, 2.0, 0.0, 2.0])
        found = first_difference("x", read(old), read(new))
        assert found is not None
        assert found.largest == pytest.approx(1e-6)

    @pytest.mark.parametrize(
        ("now", "said"),
        [
            (table().assign(score=[0.1, np.nan, 0.3, np.nan]), "2016-09-05 SZ000001, score: 0.2 in"),
            (table(more=1.0), "columns: ['score'] in the bundle, ['score', 'more'] here"),
            (table().iloc[:3], "row 4, 2016-09-06 SZ000001, which only the bundle has: 4 rows in"),
            (
                table().rename(index={"SZ000001": "SZ000002"}),
                "row 2: 2016-09-05 SZ000001 in the bundle, 2016",
            ),
            (table().astype("float32"), "2016-09-05 SH600000, score: 0.1 in the bundle, 0.1 here"),
        ],
    )
    def test_what_is_no_difference_of_numbers_is_beyond_any_tolerance(
        self, read: Callable[[pd.DataFrame], Content], now: pd.DataFrame, said: str
    ) -> None:
        found = first_difference("scores", read(table()), read(now))
        assert found is not None
        assert said in str(found)
        assert found.largest == math.inf or now.dtypes.iloc[0] == "float32"

    def test_json_names_the_place(self, tmp_path: Path) -> None:
        found = []
        for days in (3, 4):
            (tmp_path / "t.json").write_text(json.dumps({"test": {"days": [1, days]}, "name": "x"}))
            found.append(read_content(tmp_path / "t.json", "t.json"))
        difference = first_difference("t.json", *found)
        assert str(difference) == "t.json: test.days.1, value: 3 in the bundle, 4 here"
        assert difference is not None
        assert difference.largest == pytest.approx(1 / 3)


class TestCare:
    def test_a_table_that_claims_too_many_cells_is_not_read(
        self, read: Callable[[pd.DataFrame], Content], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(content, "MOST_CELLS", 3)
        with pytest.raises(UserError, match=r"must have at most 3 cells, found 4 rows"):
            read(table())

    @pytest.mark.parametrize("name", ["a.parquet", "a.json", "a.safetensors", "a.csv"])
    def test_what_is_no_such_file_is_told(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"\x00{ nothing of the kind")
        with pytest.raises(UserError, match="is damaged"):
            read_content(tmp_path / name, name)
