from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.data.labels.label import ExpressionLabel


@pytest.mark.parametrize(
    ("expression", "reach", "span"),
    [
        ("Ref($close, -2) / Ref($close, -1) - 1", 2, 1),
        ("Ref($close, -1) / $close - 1", 1, 1),
        ("Ref($close, -21) / Ref($close, -1) - 1", 21, 20),
        ("Ref($close, -1) / Ref($close, 5) - 1", 1, 6),
        ("Ref(Mean($close, 5), -6) / Ref($close, -1) - 1", 6, 5),
        ("Delta(Ref($close, -3), 2)", 3, 2),
        ("Ref(EMA($close, 5), -4) / Ref($close, -1)", 4, 3),
        ("$close", 0, 1),
    ],
)
def test_how_far_an_expression_reaches_and_how_many_days_it_holds(
    expression: str, reach: int, span: int
) -> None:
    label = ExpressionLabel(expression)
    assert (label.horizon_days, label.span_days, str(label)) == (reach, span, expression)


def test_what_is_no_expression_is_said_so() -> None:
    with pytest.raises(UserError, match="a Qlib expression must be a text such as"):
        ExpressionLabel(5)  # type: ignore[arg-type]
