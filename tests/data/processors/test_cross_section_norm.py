from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from qlib.data.dataset.processor import CSRankNorm, CSZScoreNorm, Processor

from qlib_ext.checks import UserError
from qlib_ext.data.processors.cross_section_norm import CrossSectionNorm


@pytest.fixture
def frame() -> pd.DataFrame:
    """Returns of 30 days and 9 stocks: gaps, ties, a day without any, with one, and with equal ones."""
    draw = np.random.default_rng(5)
    values = draw.normal(0, 0.02, (30, 9)).round(3)
    values[draw.random(values.shape) < 0.15] = np.nan
    values[3] = np.nan
    values[4, 1:] = np.nan
    values[5] = 0.01
    index = pd.MultiIndex.from_product(
        [pd.bdate_range("2020-01-01", periods=30), [f"SH{i:06}" for i in range(9)]],
        names=["datetime", "instrument"],
    )
    columns = {
        ("feature", "CLOSE0"): draw.normal(size=270),
        ("label", "RETURN"): values.ravel(),
        ("label", "NEXT_RETURN"): draw.permutation(values.ravel()),
        ("label", "MOMENTUM"): draw.integers(0, 5, 270).astype(float),
    }
    return pd.DataFrame(columns, index=index).astype(np.float32)


class TestAgainstQlib:
    @pytest.mark.parametrize(("method", "theirs"), [("rank", CSRankNorm), ("zscore", CSZScoreNorm)])
    def test_the_columns_named_are_as_under_qlibs_processor(
        self, method: str, theirs: type[Processor], frame: pd.DataFrame
    ) -> None:
        names = [("label", "RETURN"), ("label", "NEXT_RETURN")]
        expected = theirs(fields_group="label")(frame[names].copy())
        found = CrossSectionNorm(columns=["RETURN", "NEXT_RETURN"], method=method)(frame.copy())
        pd.testing.assert_frame_equal(found[names], expected, check_dtype=False, rtol=1e-5, atol=1e-6)
        others = [("feature", "CLOSE0"), ("label", "MOMENTUM")]
        pd.testing.assert_frame_equal(found[others], frame[others])


class TestRanks:
    """Bit for bit those of pandas, which takes four times as long."""

    @given(
        values=hnp.arrays(
            np.float32,
            st.integers(0, 60),
            elements=st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 1.5, -1.0])
            | st.floats(-(2.0**-9), 2.0**-9, width=32),
        ),
        seed=st.integers(0, 99),
        ordered=st.booleans(),
    )
    def test_against_pandas(self, values: np.ndarray, seed: int, ordered: bool) -> None:
        number = np.random.default_rng(seed).integers(0, 4, len(values))
        days = pd.to_datetime("2020-01-01") + pd.to_timedelta(
            np.sort(number) if ordered else number, unit="D"
        )
        index = pd.MultiIndex.from_arrays(
            [days, [f"S{i}" for i in range(len(values))]], names=["datetime", "instrument"]
        )
        frame = pd.DataFrame({("label", "RETURN"): values}, index=index)
        expected = (frame["label", "RETURN"].groupby(level="datetime").rank(pct=True) - 0.5) * 3.46
        found = CrossSectionNorm()(frame.copy())["label", "RETURN"]
        pd.testing.assert_series_equal(found, expected, check_exact=True)

    def test_a_row_without_a_day_has_no_rank(self) -> None:
        days = pd.DatetimeIndex(["2020-01-01", pd.NaT, "2020-01-01"])
        index = pd.MultiIndex.from_arrays([days, ["A", "B", "C"]], names=["datetime", "instrument"])
        frame = pd.DataFrame({("label", "RETURN"): np.float32([1, 2, 3])}, index=index)
        found = CrossSectionNorm()(frame)["label", "RETURN"].to_numpy()
        np.testing.assert_array_equal(found, [0.0, np.nan, 1.73])


class TestLaws:
    @pytest.mark.parametrize("method", ["rank", "zscore"])
    def test_a_day_knows_no_other_day(self, method: str, frame: pd.DataFrame) -> None:
        days = frame.index.unique("datetime")
        alone = CrossSectionNorm(method=method)(frame.loc[days[7:8]].copy())
        together = CrossSectionNorm(method=method)(frame.copy()).loc[days[7:8]]
        pd.testing.assert_frame_equal(alone, together)

    @pytest.mark.parametrize("method", ["rank", "zscore"])
    def test_missing_stays_missing_and_does_not_count(self, method: str, frame: pd.DataFrame) -> None:
        column = ("label", "RETURN")
        found = CrossSectionNorm(method=method)(frame.copy())[column]
        with_value = CrossSectionNorm(method=method)(frame[frame[column].notna()].copy())[column]
        assert found[frame[column].isna()].isna().all()
        pd.testing.assert_series_equal(found[frame[column].notna()], with_value)

    def test_zscore_of_a_day_with_one_value_is_missing(self, frame: pd.DataFrame) -> None:
        day = frame.index.unique("datetime")[4]
        assert CrossSectionNorm(method="zscore")(frame.copy())["label", "RETURN"].loc[day].isna().all()

    def test_golden(self, frame: pd.DataFrame) -> None:
        day = frame.iloc[:4].copy()
        day[("label", "RETURN")] = [0.03, -0.01, np.nan, 0.01]
        ranked = CrossSectionNorm()(day.copy())["label", "RETURN"]
        np.testing.assert_allclose(
            ranked, [1.73, (1 / 3 - 0.5) * 3.46, np.nan, (2 / 3 - 0.5) * 3.46], rtol=1e-5
        )
        scored = CrossSectionNorm(method="zscore")(day.copy())["label", "RETURN"]
        np.testing.assert_allclose(scored, [1, -1, np.nan, 0], atol=1e-6)


class TestArguments:
    def test_labels_only(self) -> None:
        assert not CrossSectionNorm().is_for_infer()

    def test_an_unknown_method_is_refused(self) -> None:
        with pytest.raises(UserError, match="`method` must be one of rank, zscore, found 'ranks'"):
            CrossSectionNorm(method="ranks")

    def test_an_unknown_column_is_refused(self, frame: pd.DataFrame) -> None:
        with pytest.raises(UserError, match=r"labels of the handler \(RETURN, NEXT_RETURN, MOMENTUM\)"):
            CrossSectionNorm(columns=["RETURNS"])(frame)
