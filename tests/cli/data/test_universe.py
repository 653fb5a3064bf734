from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from qlib_ext.cli import main as cli
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.market.universes.universes import universe_rules


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "market"
    SampleMarket(seed=3, stocks=30, start="2014-01-01", end="2014-12-31").write(root)
    return root


@pytest.fixture
def market(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    from qlib_ext.market.replace import copy_store

    copy_store(made, tmp_path / "market")
    return tmp_path / "market"


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of `qlib-ext data universe`."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qlib-ext", "data", "universe", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return called


class TestTop:
    def test_it_adds_the_universe_and_says_what_it_is(
        self, market: Path, run: Callable[..., tuple[int, str, str]]
    ) -> None:
        stock = QlibStore(market).membership("csi300")["instrument"].iloc[0]
        status, out, err = run(
            market, "top5", "--top", 5, "--of", "csi300", "--exclude", f"{stock},SH000300", "--min-history-days", 20, "--refill",
            "--compare-with", "csi300", "--compare-with", "sse50",
        )  # fmt: skip
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].startswith(
            f"top5: the top 5 stocks of csi300 without {stock}, SH000300 by mean traded value"
        )
        assert (
            "members a day: 5 at least, 5.0 on average, 5 at most, on 225 days from 2014-01-30 to 2014-12-31"
            in lines[1]
        )
        assert lines[2].startswith("  3 reviews from 2014-01-30 to 2014-12-15; after the first, ")
        assert "100.0% of its members are in csi300 on an average day (5.0 of 5.0; csi300 has " in lines[3]
        assert "are in sse50" in lines[4]
        assert lines[5] == f"To use it: QLIB_DATA={market} with `instruments: top5`"
        store = QlibStore(market)
        assert stock not in set(store.membership("top5")["instrument"])
        assert universe_rules(market)["top5"]["size"] == 5

    def test_the_command_that_is_noted_makes_it_again(
        self, market: Path, run: Callable[..., tuple[int, str, str]]
    ) -> None:
        run(market, "one", "--top", 4, "--on", "2014-05-01,2014-08-01", "--on", "2014-11-03", "--exclude", "SH000016",
            "--exchange", "SH", "--buffer", 0.25, "--refill", "--by", "market_value")  # fmt: skip
        first = QlibStore(market).membership("one")
        command = shlex.split(universe_rules(market)["one"]["command"])
        assert command[:4] == ["qlib-ext", "data", "universe", "DIR"]
        status, _, err = run(market, *command[4:], "--replace")
        assert (status, err) == (0, "")
        pd.testing.assert_frame_equal(QlibStore(market).membership("one"), first)
        for extra in (["--every-months", "2"], ["--review-months", "3,9"]):
            status, _, err = run(market, "two", "--top", 4, *extra, "--replace")
            assert (status, err) == (0, "")
            assert " ".join(extra) in universe_rules(market)["two"]["command"]

    def test_into_a_new_store(
        self, market: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
    ) -> None:
        status, out, _ = run(market, "top5", "--top", 5, "--out", tmp_path / "new")
        assert status == 0
        assert "look like indices" in out
        assert f"QLIB_DATA={tmp_path / 'new'}" in out
        assert "top5" in QlibStore(tmp_path / "new").universes()
        assert "top5" not in QlibStore(market).universes()


class TestConstituents:
    def test_a_list(self, market: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]) -> None:
        codes = QlibStore(market).instruments()[3:6]
        lines = [f"{code[2:]}.{code[:2]},2014-02-03,2014-12-31" for code in codes] + ["600999.SH,2014-02-03,"]
        (tmp_path / "list.csv").write_text("\n".join(["stock,from,until", *lines]))
        status, out, err = run(
            market, "mine", "--constituents", tmp_path / "list.csv", "--column", "code=stock", "--column", "to=until",
            "--size", 3,
        )  # fmt: skip
        assert (status, err) == (0, "")
        assert "4 codes; members a day: 4 at least, 4.0 on average, 4 at most" in out
        assert "note: 1 of 4 codes have no bars, such as SH600999: they stay in the list" in out
        assert universe_rules(market)["mine"] == {
            "size": 3,
            "rule": "spells of membership read from list.csv",
            "command": "qlib-ext data universe DIR mine --constituents list.csv --column code=stock --column to=until "
            "--size 3",
        }


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["mine"],
                "error: a universe is made either from `--constituents FILE` or as `--top N`: give one of them",
            ),
            (
                ["csi300", "--top", "5"],
                "has a universe `csi300` already: choose another name, or add --replace",
            ),
            (
                ["mine", "--top", "5", "--compare-with", "sse5"],
                "has no universe 'sse5' (did you mean sse50?)",
            ),
            (
                ["mine", "--top", "5", "--review-months", "June"],
                "must be numbers of months such as 6,12, found 'June'",
            ),
            (["mine", "--top", "5", "--out", "."], "error: `out` must be a new or an empty directory"),
            (
                ["mine", "--constituents", "x.csv", "--column", "code"],
                "must be as in code=COLUMN, found 'code'",
            ),
            (
                ["mine", "--constituents", "x.csv", "--column", "code=a", "--column", "code=b"],
                "`--column` must be given once for code, found 'code=b' again",
            ),
        ],
    )
    def test_in_one_line_before_anything_is_written(
        self, made: Path, run: Callable[..., tuple[int, str, str]], arguments: list[str], message: str
    ) -> None:
        before = sorted(made.rglob("*"))
        status, out, err = run(made, *arguments)
        assert (status, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
        assert sorted(made.rglob("*")) == before
