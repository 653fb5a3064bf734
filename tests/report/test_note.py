from __future__ import annotations

from pathlib import Path

import pytest

from qlib_ext.report import headline, verdict
from qlib_ext.report.note import LONGEST, note, plain
from tests.report.conftest import MadeUpRun


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    return MadeUpRun(tmp_path_factory.mktemp("run"), days=60, epochs=3)


class TestNote:
    def test_it_says_what_the_report_says(self, run: MadeUpRun) -> None:
        view = run.view()
        text = note(view)
        for claim in verdict.claims(view, headline.estimates(view)):
            assert f"- **{plain(claim.said)}**" in text
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        said = [row.name for group in headline.groups(view) for row in group.rows]
        assert [*rows[0].split(" | ")][1:3] == ["Value", "95% interval"]
        assert sum(line.count(" | ") == 3 for line in rows) >= len(said)
        for name in said:
            assert any(line.startswith(f"| {plain(name)} | ") for line in rows), name
        assert f"{run.metrics['RankIC']:.4f}" in text.replace("−", "-")

    def test_warnings_come_before_the_figures(self, run: MadeUpRun) -> None:
        text = note(run.view())
        assert "Look at this first:" in text, "60 days are few"
        assert text.index("Look at this first:") < text.index("| Measure |")

    def test_without_a_backtest_it_is_not_spoken_of(self, tmp_path: Path) -> None:
        run = MadeUpRun(tmp_path, days=60, epochs=3)
        for path in headline.BACKTEST:
            (tmp_path / path).unlink()
        assert "xcess return" not in note(run.view())

    def test_it_fits_into_a_tag(self, run: MadeUpRun, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = note(run.view())
        assert len(whole) < LONGEST
        monkeypatch.setattr("qlib_ext.report.note.LONGEST", len(whole) - 1)
        short = note(run.view())
        assert len(short) < len(whole)
        assert short.endswith("`report/report.html`.\n")
        assert short.split("\n\nThe whole")[0] in whole


class TestPlain:
    def test_marks_stay_marks(self) -> None:
        assert plain("<b>a|b</b>\n*c* `d`") == r"\<b\>a\|b\</b\> \*c\* \`d\`"
