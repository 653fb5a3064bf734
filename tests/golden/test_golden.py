"""Five short workflows from bars to report give today what they gave when the golden files were last renewed.

Whatever of them changes fails here: a statistic by its name, an order, a score, a section of the report. Where the
change is meant, `python -m tests.golden.renew` renews the files in `tests/golden/expected`, and their difference belongs
into the commit.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.golden import golden

SAME_PLATFORM = pytest.mark.skipif(
    not golden.SAME_PLATFORM,
    reason="the hashes are those of Linux on x86-64; here the statistics alone are compared, with a tolerance",
)
RENEW = "where this is meant: python -m tests.golden.renew"


class Found:
    """What the workflows left, and where."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left = golden.run(folder)

    def __getitem__(self, name: str) -> dict[str, Any]:
        if name not in self.left:
            pytest.fail(f"{name}: {golden.failure(self.folder, name)}", pytrace=False)
        return golden.summarise(self.left[name])

    def check(self, name: str, lines: list[str]) -> None:
        """Fail with these lines, if there are any."""
        if lines:
            where = f"all that was found: {golden.found_file(self.folder, name)}"
            pytest.fail("\n".join([f"{name} ({RENEW})", *lines, where]), pytrace=False)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """All workflows, run once."""
    return Found(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("name", golden.NAMES)
class TestRun:
    def test_statistics(self, name: str, found: Found) -> None:
        want, got = golden.expected(name)["statistics"], found[name]["statistics"]
        tolerance = (golden.HERE_RTOL, golden.HERE_ATOL)
        if not golden.SAME_PLATFORM:
            tolerance = (golden.ELSEWHERE_RTOL, golden.ELSEWHERE_ATOL)
            if name in golden.SENSITIVE:
                want, got = (
                    {key: value for key, value in of.items() if key.startswith(golden.SENSITIVE[name])}
                    for of in (want, got)
                )
        found.check(name, golden.statistics_differ(want, got, *tolerance))

    @SAME_PLATFORM
    def test_scores(self, name: str, found: Found) -> None:
        lines = golden.rows_differ("scores", golden.expected(name)["scores"], found[name]["scores"])
        found.check(name, lines)

    @SAME_PLATFORM
    def test_orders(self, name: str, found: Found) -> None:
        lines = golden.rows_differ("orders", golden.expected(name)["orders"], found[name]["orders"])
        found.check(name, lines)

    @SAME_PLATFORM
    def test_tables_of_the_report(self, name: str, found: Found) -> None:
        lines = golden.report_differs(golden.expected(name)["report"], found[name]["report"])
        found.check(name, lines)


class TestSuite:
    """The suite itself: what it runs is worth pinning, and it sees what it should."""

    def test_each_workflow_has_what_is_expected_of_it(self) -> None:
        for folder, suffix in (("workflows", ".yaml"), ("expected", ".json")):
            assert {file.name for file in (golden.HERE / folder).iterdir()} == {
                name + suffix for name in golden.NAMES
            }

    @pytest.mark.parametrize("name", golden.NAMES)
    def test_a_workflow_trades_learns_and_reports(self, name: str) -> None:
        kept = golden.expected(name)
        assert kept["orders"]["rows"] > 100
        assert kept["scores"]["rows"] > 1000
        assert len(kept["report"]) > 10
        assert sum(section["rows"] for section in kept["report"].values()) > 200
        assert {"IC", "ICIR", "RankIC", "RankICIR", "lookahead/alarms"} <= set(kept["statistics"])
        assert kept["statistics"]["lookahead/alarms"] == 0

    def test_v_acts(self) -> None:
        statistics = golden.expected("lstm_cqb")["statistics"]
        rates = [value for key, value in statistics.items() if key.startswith("balance/V/")]
        assert len(rates) == 2
        assert 1.0 not in rates

    def test_some_orders_do_not_fill(self) -> None:
        unfilled = [golden.expected(name)["statistics"]["trades/fill_rate"] < 1 for name in golden.NAMES]
        assert any(unfilled)

    def test_a_statistic_that_moves_is_told(self) -> None:
        want = {"IC": 0.05, "RankIC": 0.06, "gone": 1.0}
        got = {"IC": 0.05, "RankIC": 0.06001, "new": 2.0}
        told = golden.statistics_differ(want, got, golden.HERE_RTOL, golden.HERE_ATOL)
        assert told == [
            "gone: expected 1, found none",
            "new: expected none, found 2",
            "RankIC: expected 0.06, found 0.06001, by +1.67e-04 of it",
        ]
        assert golden.statistics_differ({"a": float("nan")}, {"a": 1.0}, 1e-5, 1e-9)

    def test_an_order_that_changes_is_told(self) -> None:
        orders = [f"2016-01-0{day} SH600000 buy 100.00 at 10.0000" for day in range(1, 10)] * 2
        left = {"statistics": {}, "orders": orders, "scores": ["2016-01-01 SH600000 0.000"], "report": {}}
        other = copy.deepcopy(left)
        other["orders"][1] = other["orders"][1].replace("100.00", "200.00")
        want, got = golden.summarise(left)["orders"], golden.summarise(other)["orders"]
        told = "\n".join(golden.rows_differ("orders", want, got))
        assert told.startswith("orders: expected 18 rows of hash ")
        assert "found '2016-01-02 SH600000 buy 200.00 at 10.0000'" in told
        other["orders"] = [*orders[:8], orders[8] + ": suspended", *orders[9:]]
        told = "\n".join(golden.rows_differ("orders", want, golden.summarise(other)["orders"]))
        assert told.endswith("none of the rows that are kept differs; the others do")
        assert golden.rows_differ("orders", want, want) == []

    def test_a_section_that_changes_is_told(self) -> None:
        want = {title: golden.hashed([f"{title} | 1"]) for title in ("Costs", "Score", "Training")}
        got = {**want, "Score": golden.hashed(["Score | 2"])}
        assert golden.report_differs(want, got)[0].startswith("section `Score`: expected 1 rows of hash ")
        del got["Costs"]
        assert golden.report_differs(want, got)[0].startswith("sections: expected Costs, Score, Training")
