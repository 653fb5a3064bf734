"""docs/portfolio.md: its examples can be built."""

import re
from pathlib import Path

import pytest
import yaml

from qlib_ext.config.build import build
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.risk_models.base import RiskModel

PAGE = (Path(__file__).parents[2] / "docs" / "portfolio.md").read_text(encoding="utf-8")
KINDS = {"constraints": Constraint, "expected_returns": ExpectedReturns, "risk_model": RiskModel}
PARTS = [
    (name, part)
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    for name, parts in yaml.safe_load(block).items()
    if name in KINDS
    for part in (parts if isinstance(parts, list) else [parts])
]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_examples_can_be_built(name, part) -> None:
    assert build(part, KINDS[name], name=name)


def test_there_are_examples() -> None:
    assert {name for name, _ in PARTS} == set(KINDS)
