"""What Qlib evaluates as Python is read first: expressions pass, programs do not."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import qlib
from hypothesis import given
from hypothesis import strategies as st
from qlib.data import D
from qlib.data.data import ExpressionD, LocalExpressionProvider

from qlib_ext.checks import UserError
from qlib_ext.features.engine import parsing
from qlib_ext.features.expression_text import CheckedExpressionProvider, check_expression, fields, guard
from qlib_ext.market.synthetic.sample import SampleMarket


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("expressions") / "tiny"
    SampleMarket(seed=5, stocks=20, start="2016-01-04", end="2016-09-30").write(root)
    return root


@pytest.fixture
def started(market: Path) -> None:
    qlib.init(provider_uri=str(market), region="cn", kernels=1)


class TestExpressions:
    @pytest.mark.parametrize(
        ("text", "reads"),
        [
            ("$close", {"close"}),
            ("Ref($close, -2) / Ref($close, -1) - 1", {"close"}),
            ("($Change >= 0.095) | ($volume <= 0)", {"change", "volume"}),
            ("Mean($close, N=5) * -1.5", {"close"}),
            ("Rolling($high, 5, 'mean')", {"high"}),
            ("If($close > $open, 1, 0)", {"close", "open"}),
            (" Corr($close, Log($volume + 1), 20) ", {"close", "volume"}),
        ],
    )
    def test_pass_and_their_fields_are_known(self, text: str, reads: set[str]) -> None:
        assert check_expression(text) == text
        assert fields(text) == reads

    def test_an_operator_that_qlib_was_given_passes(self, started: None) -> None:
        assert check_expression("P($$roe_q)")  # of point-in-time data: registered by `qlib.init` alone


class TestPrograms:
    @pytest.mark.parametrize(
        "text",
        [
            "ChangeInstrument('..', $close)",
            "ChangeInstrument('.', $close)",
            "ChangeInstrument('../SH600000', $close)",
            " + ".join(["$close"] * 400),
            "__import__('os').system('touch planted')",
            "os.system('touch planted')",
            "$close.__class__",
            "().__class__.__bases__",
            "(lambda: 1)()",
            "[x for x in (1,)]",
            "1 if $close else 2",
            "open('planted', 'w')",
            "Operators",
            "reset()",
            "_ops($close)",
            "Ref($close, 1)($open)",
            "$close[0]",
            "'text'",
            "f'{1}'",
            "(x := 1)",
            "9 ** 9 ** 9 ** 9",
            "'a' * 1000000000",
            "1, 2",
            "Ref(*[$close, 1])",
            "Feature('../../secret')",
            "ChangeInstrument('../../x', $close)",
            "Feature()",
            "$close; import os",
            "(" * 5000,
            "-" * 9000 + "1",
            "",
            "\0",
        ],
    )
    def test_do_not(self, text: str) -> None:
        with pytest.raises(UserError, match="Qlib expression"):
            check_expression(text)

    @pytest.mark.parametrize("given_", [3, None, ["$close"], "$close + " * 2000 + "1"])
    def test_nor_what_is_no_text_or_endless(self, given_: Any) -> None:
        with pytest.raises(UserError, match="a Qlib expression must"):
            check_expression(given_)

    @given(st.text(max_size=60))
    def test_any_text_passes_or_is_refused_in_one_way(self, text: str) -> None:
        with contextlib.suppress(UserError):
            check_expression(text)

    def test_a_misspelt_operator_is_told_the_nearest(self) -> None:
        with pytest.raises(UserError, match=r"no operator `Reff` \(did you mean Ref\?\)"):
            check_expression("Reff($close, 1)")

    def test_what_is_wrong_is_shown_as_it_was_written(self) -> None:
        with pytest.raises(UserError, match=r"`\$close if \$open else 1` in it"):
            check_expression("$close if $open else 1")


class TestQlib:
    PROGRAM = "(open)('planted', 'w') and $close"

    def test_a_label_is_read_before_it_is_evaluated(
        self, started: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match="no Qlib expression"):
            parsing.parse(self.PROGRAM)
        assert not list(tmp_path.iterdir())

    def test_the_guard_reads_what_qlib_itself_would_evaluate(
        self, started: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        program = "(open)('planted', 'w') and $close"
        ExpressionD.get_expression_instance(program)
        assert (tmp_path / "planted").exists()  # Qlib as it is runs the program
        (tmp_path / "planted").unlink()
        guard()
        with pytest.raises(UserError, match="Qlib expression"):
            D.features(["SH000300"], ["(open)('planted', 'a') and $close"])
        assert not list(tmp_path.iterdir())
        assert len(D.features(["SH000300"], ["Ref($close, 1)/$close"])) > 20

    def test_the_guard_stands_once_and_leaves_another_provider_alone(self, started: None) -> None:
        assert type(ExpressionD._provider) is LocalExpressionProvider
        guard()
        first = ExpressionD._provider
        assert type(first) is CheckedExpressionProvider
        guard()
        assert ExpressionD._provider is first
