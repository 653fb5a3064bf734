from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket
from tests.report.comparison.conftest import EQUAL, Store
from tests.report.index.test_lists import written

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("index_market") / "tiny"
    SampleMarket(seed=3, stocks=20, start="2016-01-04", end="2016-07-29").write(root)
    return root


@pytest.fixture(scope="module")
def store(market: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    made.run("equal", params=EQUAL)
    made.run("cqb", tags={"data_fingerprint": QlibStore(market).fingerprint()})
    return made


@pytest.fixture
def run(store: Store, command: Command) -> Command:
    return functools.partial(command, "index", "--tracking-uri", store.uri)


def test_the_page_is_written_with_the_newest_list(run: Command, tmp_path: Path) -> None:
    (tmp_path / "daily").mkdir()
    written(tmp_path / "daily", "2026-01-06")
    status, out, _ = run()
    assert status == 0
    page = Path(out.strip())
    assert page == tmp_path / "reports" / "index.html"
    text = page.read_text()
    assert "equal" in text
    assert "csi300 at the close of 2026-01-06" in text


def test_the_runs_of_a_store_and_what_is_wrong_with_it(run: Command, market: Path, tmp_path: Path) -> None:
    status, _, _ = run("--store", str(market), "--out", "mine.html")
    assert status == 0
    text = (tmp_path / "mine.html").read_text()
    assert ">cqb<" in text
    assert ">equal<" not in text
    assert "looked at now" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--data", "01", "--store", "x"], "one of `--data` and `--store`"),
        (["--lists", "none"], "must be a folder with lists of `qlib-ext daily`, found none in none"),
        (["--out", "."], "`--out` must be a file, found the folder"),
    ],
)
def test_what_does_not_fit_is_told(run: Command, given: list[str], said: str) -> None:
    status, _, err = run(*given)
    assert status == 2
    assert said in err
