from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qlib_ext.cli import main as cli
from qlib_ext.market.quality.check import KINDS, QualityReport, check_store
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "clean"
    SampleMarket(seed=3, stocks=20, start="2014-01-01", end="2014-07-31").write(root)
    return root


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A market with an infinite open of each of 7 stocks, and one member without bars."""
    root = tmp_path_factory.mktemp("made") / "spoilt"
    store, _ = SampleMarket(seed=3, stocks=20, start="2014-01-01", end="2014-07-31").write(root)
    for code in store.instruments()[-7:]:
        path = root / "features" / code.lower() / "open.day.bin"
        values = np.fromfile(path, dtype="<f4")
        values[40] = np.inf
        values.tofile(path)
    members = root / "instruments" / "csi300.txt"
    members.write_text(members.read_text() + "SH699999\t2014-02-10\t2014-02-11\n")
    return root


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit status, stdout and stderr of `qlib-ext data check`."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qlib-ext", "data", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return called


class TestAnswer:
    def test_a_clean_store(self, clean: Path, run: Run) -> None:
        status, out, err = run(clean)
        assert (status, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].startswith(
            f"{clean}: 23 instruments, 142 days from 2014-01-02 to 2014-07-31, fields amount"
        )
        assert lines[2] == "Nothing was found."
        assert lines[-1].startswith(
            f"0 errors, 0 warnings, 0 notes; {len(KINDS)} kinds of fault looked for in "
        )

    def test_errors_make_the_status_1(self, spoilt: Path, run: Run) -> None:
        status, out, err = run(spoilt)
        assert (status, err) == (1, f"Next: qlib-ext data check {spoilt} --fix OUT\n")
        assert "\n7 errors\n  value-infinite: a field holds infinity. It spreads through" in out
        assert "\n    and 2 more (--all lists them)\n" in out
        assert out.count("open is inf") == 5
        assert "\n    instruments/csi300.txt: SH699999 has no bars, and is a member on 2 days\n" in out
        assert "\n7 errors, 2 warnings, 0 notes; " in out

    def test_all_of_them(self, spoilt: Path, run: Run) -> None:
        _, out, _ = run(spoilt, "--all")
        assert out.count("open is inf") == 7
        assert "more" not in out

    def test_warnings_alone_leave_the_status_0(self, spoilt: Path, run: Run, tmp_path: Path) -> None:
        status, out, _ = run(spoilt, "--fix", tmp_path / "fixed")
        assert status == 0
        assert "\n0 errors, 9 warnings, 0 notes; " in out

    def test_json_alone_and_whole(self, spoilt: Path, run: Run) -> None:
        status, out, err = run(spoilt, "--json")
        assert (status, err) == (1, "")
        assert QualityReport.from_json(json.loads(out)) == check_store(spoilt)

    def test_narrowed(self, spoilt: Path, run: Run) -> None:
        _, out, _ = run(spoilt, "--universe", "sse50", "--benchmark", "SH000905", "--json")
        document = json.loads(out)
        assert {finding["kind"] for finding in document["findings"]} == {"benchmark-missing"}
        assert document["store"]["left_out"] == 7  # infinite values of stocks that are no members
        _, out, _ = run(spoilt, "--universe", "sse50")
        assert "7 findings of other stocks left out; without --universe they are listed" in out


class TestFix:
    def test_it_says_what_it_did_and_what_not(self, spoilt: Path, run: Run, tmp_path: Path) -> None:
        _, out, _ = run(spoilt, "--fix", tmp_path / "fixed")
        assert f"\n{tmp_path / 'fixed'}: a new store\n  infinite values of `open` replaced by NaN: 7\n" in out
        assert "\n  mended\n    value-infinite: 7 findings (replaces it by NaN)\n" in out
        assert (
            "\n  left as it is, or seen only now: a person must decide\n    price-missing: 7 findings\n"
            in out
        )
        assert "\n    membership-without-bars: 1 finding\n" in out
        assert len(QlibStore(tmp_path / "fixed").instruments()) == 23

    def test_a_clean_store_gives_an_equal_one(self, clean: Path, run: Run, tmp_path: Path) -> None:
        status, out, _ = run(clean, "--fix", tmp_path / "fixed")
        assert status == 0
        assert "nothing was safe to mend: the content is that of the old one" in out
        assert QlibStore(tmp_path / "fixed").fingerprint() == QlibStore(clean).fingerprint()

    def test_json_holds_both_audits(self, spoilt: Path, run: Run, tmp_path: Path) -> None:
        status, out, _ = run(spoilt, "--fix", tmp_path / "fixed", "--json")
        document = json.loads(out)
        assert status == 0
        assert document["before"]["counts"]["error"] == len(document["mended"]) == 7
        assert QualityReport.from_json(document["after"]) == check_store(tmp_path / "fixed")


class TestUsage:
    def test_no_store(self, run: Run, tmp_path: Path) -> None:
        status, out, err = run(tmp_path / "nothing")
        assert (status, out) == (2, "")
        assert err.startswith("error: expected a Qlib data directory, found no directory at ")

    def test_a_place_for_the_new_store_that_is_none(self, clean: Path, run: Run) -> None:
        status, out, err = run(clean, "--fix", clean / "fixed")
        assert (status, out) == (2, "")
        assert err.startswith("error: `--fix` writes a new store and leaves the old one as it is;")

    def test_a_broken_store_is_an_answer_and_no_mistake(self, run: Run, tmp_path: Path) -> None:
        status, out, err = run(tmp_path)
        assert (status, err) == (1, "")
        assert out.startswith(f"{tmp_path}: 0 instruments, no calendar\n")
        assert "calendars/day.txt is missing" in out
