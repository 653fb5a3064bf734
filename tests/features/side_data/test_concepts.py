from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from qlib_ext.checks import UserError
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.concepts import (
    BLOCK_DAYS,
    ConceptGather,
    ConceptSpells,
    CorrelationClusters,
    FirstAvailable,
    NoConcepts,
    SideConcepts,
)
from qlib_ext.market.side_data.side_data import SideDataError
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.synthetic.sample import SampleMarket

DAYS, STOCKS, NAMES = 3 * BLOCK_DAYS + 5, 7, ("a", "b", "c")


@st.composite
def any_spells(draw: st.DrawFn) -> ConceptSpells:
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, STOCKS - 1), st.integers(0, 2), st.integers(-3, DAYS), st.integers(0, DAYS + 9)
            ),
            max_size=30,
        )
    )
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return ConceptSpells(NAMES, *columns)


def naive(spells: ConceptSpells, day: int, columns: list[int]) -> np.ndarray:
    found = np.zeros((len(columns), len(spells.names)), dtype=np.float32)
    for row, stock in enumerate(columns):
        for i, other in enumerate(spells.stock):
            if other == stock and spells.first[i] <= day < spells.after[i]:
                found[row, spells.concept[i]] = 1
    return found


class TestGather:
    @given(
        spells=any_spells(),
        day=st.integers(0, DAYS - 1),
        columns=st.lists(st.integers(0, STOCKS - 1), unique=True),
    )
    def test_a_day_is_what_the_spells_say(self, spells: ConceptSpells, day: int, columns: list[int]) -> None:
        """Spells may overlap, be empty, or reach beyond the calendar; stocks come in any order."""
        gather = ConceptGather(spells, DAYS, STOCKS, "cpu")
        expected = naive(spells, day, columns)
        found = gather(day, torch.tensor(columns, dtype=torch.int64))
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), expected)
        np.testing.assert_array_equal(spells.matrix(day, np.array(columns, dtype=np.int64)), expected)

    def test_the_first_and_the_last_day_of_each_block(self) -> None:
        edges = [0, BLOCK_DAYS - 1, BLOCK_DAYS, 2 * BLOCK_DAYS - 1, 2 * BLOCK_DAYS, DAYS - 1]
        one = np.zeros(1, dtype=np.int64)
        for first in edges:
            for last in edges:
                spells = ConceptSpells(("a",), one, one, one + first, one + last + 1)
                gather = ConceptGather(spells, DAYS, 1, "cpu")
                found = [day for day in range(DAYS) if gather(day, torch.tensor([0])).item()]
                assert found == list(range(first, last + 1))

    def test_spells_are_checked(self) -> None:
        one = np.zeros(1, dtype=np.int64)
        with pytest.raises(UserError, match="one number a spell"):
            ConceptSpells(NAMES, one, one, one, np.zeros(2, dtype=np.int64))
        with pytest.raises(UserError, match="`concept` must hold positions in the 3 names"):
            ConceptSpells(NAMES, one, one + 3, one, one + 1)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> tuple[QlibStore, MarketPanel]:
    market = SampleMarket(seed=3, stocks=60, start="2014-01-01", end="2015-12-31")
    store, _ = market.write(tmp_path_factory.mktemp("sample") / "market")
    return store, MarketPanel.load(store, "csi300", ["close"])


class TestSideConcepts:
    def test_industries_of_the_sample_market(self, market: tuple[QlibStore, MarketPanel]) -> None:
        store, panel = market
        spells = SideConcepts().load(store, panel)
        rows = pd.read_parquet(store.root / "side" / "industry.parquet")
        for day in (0, 100, 250, len(panel.calendar) - 1):
            columns = np.flatnonzero(panel.present[day])
            found = spells.matrix(day, columns)
            assert (found.sum(axis=1) == 1).all()
            for stock, row in zip(columns, found, strict=True):
                date = panel.calendar[day]
                now = (rows["start"] <= date) & (date <= rows["end"])
                (industry,) = rows.loc[now & (rows["instrument"] == panel.instruments[stock]), "industry"]
                assert spells.names[int(row.argmax())] == industry

    def test_both_ends_count_and_an_open_one_never_comes(self, tmp_path: Path) -> None:
        store, panel = self.made(
            tmp_path,
            "A1,2020-01-03,2020-01-07,x",
            "A1,2020-01-08,,y",
            "A2,2019-01-01,2020-01-04,x",  # ends on a Saturday
            "A2,2020-01-05,9999-12-31,z",  # begins on a Sunday
            "A3,2020-01-03,2020-01-06,x",
            "A3,2020-01-03,2020-01-06,y",
            "NO,2020-01-03,,w",
            "A1,2010-01-03,2019-01-06,w",
        )
        spells = SideConcepts("theme").load(store, panel)
        assert spells.names == ("x", "y", "z")
        found = {
            (code, name): [
                f"{day:%d}" for t, day in enumerate(panel.calendar) if spells.matrix(t, np.array([s]))[0, c]
            ]
            for s, code in enumerate(panel.instruments)
            for c, name in enumerate(spells.names)
        }
        assert {key: days for key, days in found.items() if days} == {
            ("A1", "x"): ["03", "06", "07"],
            ("A1", "y"): ["08", "09", "10"],
            ("A2", "x"): ["01", "02", "03"],
            ("A2", "z"): ["06", "07", "08", "09", "10"],
            ("A3", "x"): ["03", "06"],
            ("A3", "y"): ["03", "06"],
        }

    def test_a_table_without_the_universe_is_an_error(self, tmp_path: Path) -> None:
        store, panel = self.made(tmp_path, "NO,2020-01-03,,w", "A1,2010-01-03,2019-01-06,w")
        with pytest.raises(StoreError, match="name none of the 3 stocks of the universe within the calendar"):
            SideConcepts("theme").load(store, panel)
        assert SideConcepts("theme").lacks(store) is None
        assert SideConcepts("concepts").lacks(store) == "there is no side/concepts.parquet or .csv"
        with pytest.raises(SideDataError, match="no side data 'industry'"):
            SideConcepts().load(store, panel)

    @staticmethod
    def made(root: Path, *rows: str) -> tuple[QlibStore, MarketPanel]:
        calendar = pd.bdate_range("2020-01-01", "2020-01-10")
        bars = {"close": np.ones((len(calendar), 3))}
        store = write_store(root / "store", calendar, ["A1", "A2", "A3"], bars, {})
        (store.root / "side").mkdir()
        text = "\n".join(["instrument,start,end,theme", *rows])
        (store.root / "side" / "theme.csv").write_text(text)
        return store, MarketPanel.load(store, "all", ["close"])


def grouped(days: int = 240, groups: int = 4, size: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Closes `[D, S]` of stocks that move with a market and with their group, and the groups `[S]`."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    draw.shuffle(group)
    moves = draw.normal(0, 0.02, (days, 1)) + 0.02 * draw.normal(0, 1, (days, groups))[:, group]
    moves += draw.normal(0, 0.02, (days, len(group)))
    return 10 * np.exp(moves.cumsum(axis=0)), group


class TestCorrelationClusters:
    clusters = CorrelationClusters(n_clusters=4, window_days=80, min_days=40, refit_every_days=20)

    def test_they_find_the_groups(self) -> None:
        close, group = grouped()
        refits, labels = self.clusters.labels(close, np.ones(close.shape, dtype=bool))
        assert refits.tolist() == list(range(40, 240, 20))
        assert all(adjusted_rand_score(group, found) == 1 for found in labels[2:])

    def test_they_are_wards_clusters_of_the_unit_vectors(self) -> None:
        """Independent: pandas for the returns, scikit-learn for the tree."""
        close, _ = grouped(size=12, seed=2)
        close[:, :6] = np.nan  # no return at all
        close[150:165, 7] = np.nan
        refits, labels = self.clusters.labels(close, np.ones(close.shape, dtype=bool))
        day = refits[-1]
        returns = pd.DataFrame(close).pct_change(fill_method=None).iloc[day - 79 : day + 1, 6:]
        excess = returns.sub(returns.mean(axis=1), axis=0)
        centred = excess.sub(excess.mean()).fillna(0)
        vectors = (centred / np.sqrt((centred**2).sum())).T
        expected = AgglomerativeClustering(4, linkage="ward").fit_predict(vectors)
        assert adjusted_rand_score(expected, labels[-1][6:]) == 1
        assert (labels[-1][:6] == -1).all()

    def test_no_day_after_a_refit_matters(self) -> None:
        close, _ = grouped(seed=3)
        members = np.ones(close.shape, dtype=bool)
        refits, before = self.clusters.labels(close, members)
        for t in (60, 79, 80, 150):
            moved, others = close.copy(), members.copy()
            draw = np.random.default_rng(t)
            moved[t + 1 :] *= draw.uniform(0.5, 2, moved[t + 1 :].shape)
            moved[t + 1 :][draw.random(moved[t + 1 :].shape) < 0.2] = np.nan
            others[t + 1 :] = draw.random(others[t + 1 :].shape) < 0.5
            _, after = self.clusters.labels(moved, others)
            np.testing.assert_array_equal(before[refits <= t], after[refits <= t])
            assert not np.array_equal(before, after)

    def test_who_is_no_member_yet_joins_and_changes_nothing(self) -> None:
        close, group = grouped(seed=4)
        members = np.ones(close.shape, dtype=bool)
        members[:170, ::4] = False
        refits, labels = self.clusters.labels(close, members)
        later = np.zeros(len(group), dtype=bool)
        later[::4] = True
        _, alone = self.clusters.labels(close[:, ~later], members[:, ~later])
        early = refits < 170
        np.testing.assert_array_equal(labels[early][:, ~later], alone[early])
        assert (labels[early][:, later] >= 0).all()
        assert adjusted_rand_score(group, labels[3]) == 1

    def test_labels_stay_with_their_group(self) -> None:
        close, _ = grouped(days=400, seed=5)
        _, labels = self.clusters.labels(close, np.ones(close.shape, dtype=bool))
        assert (labels[2:] == labels[2]).all()
        anew, others = grouped(days=400, seed=6)  # from day 400 on stocks move with other groups
        moved = np.concatenate([close, anew / anew[0] * close[-1]])
        _, found = self.clusters.labels(moved, np.ones(moved.shape, dtype=bool))
        assert adjusted_rand_score(others, found[-1]) == 1
        assert set(found[-1]) == set(range(4))

    def test_a_label_goes_to_the_cluster_that_shares_most(self) -> None:
        before = np.array([0, 0, 0, 1, 1, 2, 2, 3, -1])
        labels = np.array([2, 2, 1, 1, 1, 3, 3, -1, 0])
        found = self.clusters._relabel(labels, before, np.ones(9, dtype=bool))
        assert found.tolist() == [0, 0, 1, 1, 1, 2, 2, -1, 3]

    def test_too_little_history_is_no_cluster(self) -> None:
        close, _ = grouped()
        close[:100, 0] = np.nan  # listed late
        close[::2, 1] = np.nan  # never two days in a row
        close[120:, 2] = np.nan  # delisted
        close[:, 3] = 7.0  # never moves, though the others do
        close[:, 4] = close[0, 4]
        refits, labels = self.clusters.labels(close, np.ones(close.shape, dtype=bool))
        known = labels >= 0
        assert refits[known[:, 0]].min() == 140  # 40 returns from day 101 on
        assert not known[:, 1].any()
        assert refits[known[:, 2]].max() == 140  # 80 days that hold 40 returns and more
        assert known[:, 3:].all()

    def test_of_many_stocks_some_make_the_tree_and_the_rest_joins(self) -> None:
        close, group = grouped(size=20, seed=7)
        some = CorrelationClusters(
            n_clusters=4, window_days=80, min_days=40, refit_every_days=20, fit_stocks=20
        )
        _, labels = some.labels(close, np.ones(close.shape, dtype=bool))
        assert adjusted_rand_score(group, labels[-1]) == 1

    def test_fewer_stocks_than_clusters(self) -> None:
        close, _ = grouped(groups=3, size=1)
        _, labels = self.clusters.labels(close, np.ones(close.shape, dtype=bool))
        assert all(len(set(found)) == 3 for found in labels)
        _, one = self.clusters.labels(close[:, :1], np.ones((len(close), 1), dtype=bool))
        assert (one == -1).all()
        _, still = self.clusters.labels(np.ones((200, 3)), np.ones((200, 3), dtype=bool))
        assert (still == -1).all()

    def test_spells_say_what_the_labels_say(self, market: tuple[QlibStore, MarketPanel]) -> None:
        store, panel = market
        spells = self.clusters.load(store, panel)
        refits, labels = self.clusters.labels(panel.field("close"), panel.members)
        everyone = np.arange(len(panel.instruments))
        assert len(spells.names) == 4
        for day in range(0, len(panel.calendar), 7):
            found = spells.matrix(day, everyone)
            period = np.searchsorted(refits, day, side="right") - 1
            expected = labels[period] if period >= 0 else np.full(len(everyone), -1)
            np.testing.assert_array_equal(np.where(found.any(axis=1), found.argmax(axis=1), -1), expected)
        runs = len(spells.stock)
        assert runs < (labels >= 0).sum() / 2

    def test_on_the_sample_market_they_resemble_industries(
        self, market: tuple[QlibStore, MarketPanel]
    ) -> None:
        store, panel = market
        day = len(panel.calendar) - 1
        columns = np.flatnonzero(panel.present[day])
        industries = SideConcepts().load(store, panel).matrix(day, columns).argmax(axis=1)
        clusters = CorrelationClusters(n_clusters=5).load(store, panel).matrix(day, columns)
        there = clusters.any(axis=1)
        assert adjusted_rand_score(industries[there], clusters[there].argmax(axis=1)) > 0.5

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n_clusters": 1}, "`n_clusters` must be at least 2, found 1"),
            ({"window_days": 100}, "`window_days` must be at least 120, found 100"),
            ({"min_days": 1}, "`min_days` must be at least 2, found 1"),
            ({"refit_every_days": 0}, "`refit_every_days` must be at least 1, found 0"),
            ({"fit_stocks": 10}, "`fit_stocks` must be at least 30, found 10"),
        ],
    )
    def test_arguments_are_checked(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            CorrelationClusters(**arguments)


class TestFirstAvailable:
    def test_concepts_then_industries_then_clusters_then_none(
        self, market: tuple[QlibStore, MarketPanel], tmp_path: Path
    ) -> None:
        store, panel = market
        root = tmp_path / "store"
        frame = {"close": panel.field("close")}
        members = {"csi300": store.membership("csi300")}
        bare = write_store(root, panel.calendar, panel.instruments, frame, members)
        chain = FirstAvailable()
        assert chain.describe(bare) == CorrelationClusters().describe(bare)
        (note,) = chain.notes(bare)
        assert note == (
            "concepts: clusters of trailing return correlations, since there is no side/concepts.parquet or .csv; "
            "there is no side/industry.parquet or .csv"
        )
        (root / "side").mkdir()
        for name in ("industry", "concepts"):
            (root / "side" / f"{name}.csv").write_text(
                f"instrument,start,end,{name}\n{panel.instruments[0]},2014-01-01,,x\n"
            )
            assert chain.describe(bare)["source"] == f"side/{name}.csv"
            spells = chain.load(bare, panel)
            assert spells is not None
            assert spells.names == ("x",)
        assert chain.notes(bare) == []
        assert chain.describe(bare)["fingerprint"] != SideConcepts().describe(bare)["fingerprint"]

    def test_a_store_too_short_for_clusters_has_none(self, tmp_path: Path) -> None:
        days = pd.bdate_range("2020-01-01", periods=30)
        store = write_store(tmp_path / "s", days, ["A1"], {"close": np.ones((30, 1))}, {})
        panel = MarketPanel.load(store, "all", ["close"])
        chain = FirstAvailable()
        assert chain.load(store, panel) is NoConcepts().load(store, panel) is None
        assert "30 days are too few for clusters of 120 returns" in chain.notes(store)[0]

    def test_a_faulty_file_is_no_missing_file(self, tmp_path: Path) -> None:
        days = pd.bdate_range("2020-01-01", periods=30)
        store = write_store(tmp_path / "s", days, ["A1"], {"close": np.ones((30, 1))}, {})
        (store.root / "side").mkdir()
        (store.root / "side" / "concepts.csv").write_text(
            "instrument,start,end,concepts\nA1,2020-02-01,2020-01-01,x\n"
        )
        with pytest.raises(SideDataError, match="ends before it begins"):
            FirstAvailable().load(store, MarketPanel.load(store, "all", ["close"]))

    def test_sources_may_be_given(self) -> None:
        module = "qlib_ext.features.side_data.concepts"
        chain = FirstAvailable([{"class": f"{module}.CorrelationClusters", "kwargs": {"n_clusters": 9}}])
        assert isinstance(chain.sources[0], CorrelationClusters)
        with pytest.raises(UserError, match="must be a Concepts"):
            FirstAvailable([{"class": "qlib_ext.features.side_data.market_value.Uniform"}])
