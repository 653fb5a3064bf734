from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qlib_ext.cli import main as cli
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.report.charts import Lines


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "market"
    SampleMarket(seed=3, stocks=30, start="2014-01-01", end="2014-12-31").write(root)
    (root / "universes.json").write_text('{"csi100": {"size": 7, "rule": "the seven of them"}}')
    (root / "import.json").write_text(
        '{"settings": {"region": "cn", "columns": {"close": "Last"}, "pattern": null}}'
    )
    return root


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of `qlib-ext data info`."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qlib-ext", "data", "info", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return called


def test_a_synthetic_market_is_said_first(market: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = run(market, "--no-fingerprint")
    assert status == 0
    assert out.splitlines()[0].startswith(
        "Synthetic market: a program drew it (`qlib-ext data sample`, seed 3)"
    )


def test_it_says_what_is_there(market: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, err = run(market)
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    store = QlibStore(market)
    assert f"store {market}" in lines
    assert "range 2014-01-02 to 2014-12-31, 245 trading days" in lines
    assert "instruments 33 with bars" in lines
    assert f"fingerprint {store.fingerprint()}" in lines
    assert any(line.startswith("close 33 100.0% ") for line in lines)
    assert any(line.startswith("csi100 ") and line.endswith(" 2014-01-02 2014-12-31 7") for line in lines)
    assert any(re.fullmatch(r"csi100( \d+){4}", line) for line in lines)
    assert "csi100: the seven of them" in lines
    assert any(line.startswith("market_value values ") for line in lines)
    assert 'columns {"close": "Last"}' in lines
    assert not any(line.startswith("pattern") for line in lines)


def test_80_columns_hold_the_tables(
    market: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    root = tmp_path / "market"
    shutil.copytree(market, root)
    name = "top_500_by_traded_value_of_the_main_board_alone_without_funds_and_banks"
    (root / "instruments" / f"{name}.txt").write_text("SH000300\t2014-01-02\t2014-12-31\n")
    _, out, _ = run(root, "--no-fingerprint")
    tables = out[out.index("\nFields") : out.index("\nImported")]
    assert max(map(len, tables.splitlines())) <= 80
    assert name in "".join(out.split())


def test_json_is_the_same_and_nothing_else(market: Path, run: Callable[..., tuple[int, str, str]]) -> None:
    status, out, _ = run(market, "--json", "--no-fingerprint")
    found = json.loads(out)
    assert status == 0
    assert (found["days"], found["instruments"], found["fingerprint"]) == (245, 33, None)
    assert {universe["name"] for universe in found["universes"]} == {"all", "csi100", "csi300", "sse50"}


def test_the_picture(
    market: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every universe is a line of its daily sizes."""
    sizes = {}

    def drawn(chart: Lines) -> object:
        sizes.update(chart.series)
        return original(chart)

    import qlib_ext.report.figures as figures

    original = figures.drawn
    monkeypatch.setattr(figures, "drawn", drawn)
    status, out, _ = run(market, "--plot", tmp_path / "sizes.png", "--no-fingerprint")
    assert status == 0
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")
    assert f"drawn in {tmp_path / 'sizes.png'}" in out
    store = QlibStore(market)
    assert set(sizes) == set(store.universes())
    mask = store.member_mask("csi300", store.instruments())
    assert sizes["csi300"].fillna(0).tolist() == mask.sum(axis=1).tolist()  # type: ignore[attr-defined]


def test_more_universes_than_colours_are_named(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    store, _ = SampleMarket(seed=3, stocks=20, start="2014-01-01", end="2014-07-31").write(tmp_path / "m")
    for k in range(5):
        (store.root / "instruments" / f"u{k}.txt").write_text("SH000300\t2014-01-02\t2014-07-31\n")
    status, out, _ = run(store.root, "--plot", tmp_path / "sizes.png", "--no-fingerprint")
    assert status == 0
    assert out.splitlines()[-1].endswith("sizes.png, but for u4: too many for one picture")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: expected a Qlib data directory, found no directory at `nowhere`"),
        ([".", "--plot", "sizes.pdf"], "error: `--plot` must be a file of PNG in a directory that is there"),
        (
            [".", "--plot", "nowhere/sizes.png"],
            "error: `--plot` must be a file of PNG in a directory that is there",
        ),
    ],
)
def test_mistakes_are_one_line(
    run: Callable[..., tuple[int, str, str]], arguments: list[str], message: str
) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_name_of_the_store_begins_no_line_and_moves_no_cursor(
    market: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], form: tuple[str, ...]
) -> None:
    root = shutil.copytree(market, tmp_path / "evil\nwarning: forged\x1b[2J")
    universe = "x\nwarning: forged\x1b[2J\u202e"
    shutil.copy(root / "instruments" / "csi100.txt", root / "instruments" / f"{universe}.txt")
    status, out, err = run(root, "--no-fingerprint", *form)
    assert status == 0
    assert not set("\x1b\u202e") & set(out + err)
    assert not [line for line in (out + err).splitlines() if line.lstrip().startswith("warning: forged")]
    assert r"forged\u001b[2J\u202e" in out
    if form:
        assert universe in [each["name"] for each in json.loads(out)["universes"]]
