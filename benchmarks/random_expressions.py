"""Random expressions in Qlib's language, as deep as people write them, for holding one engine against another."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

FIELDS = ("open", "high", "low", "close", "volume")
WINDOWS = st.sampled_from([4, 5, 10, 20, 30, 60])
NUMBERS = st.sampled_from(["1", "2", "0.5", "-1.5", "1e-12", "100"])
ROLLING = ("Mean", "Sum", "Std", "Var", "Max", "Min", "Med", "Mad", "Rank", "Count", "IdxMax", "IdxMin")
LINES = ("Slope", "Rsquare", "Resi", "WMA", "EMA", "Skew", "Kurt")


def _grown(inner: SearchStrategy[str]) -> SearchStrategy[str]:
    """Expressions one operator larger."""
    other = inner | NUMBERS
    condition = st.builds(
        "({} {} {})".format, inner, st.sampled_from([">", "<", ">=", "<=", "==", "!="]), other
    )
    joined = (
        condition
        | st.builds("({} {} {})".format, condition, st.sampled_from("&|"), condition)
        | st.builds("Not({})".format, condition)
    )
    return st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), other),
        st.builds("{}({}, {})".format, st.sampled_from(["Greater", "Less"]), inner, other),
        st.builds("{}({})".format, st.sampled_from(["Abs", "Sign", "Log"]), inner),
        st.builds("Power({}, {})".format, inner, st.sampled_from(["2", "0.5", "-1"])),
        st.builds("{}({}, {})".format, st.sampled_from(["Ref", "Delta"]), inner, st.integers(1, 10)),
        st.builds("{}({}, {})".format, st.sampled_from(ROLLING), inner | joined, WINDOWS),
        st.builds("{}({}, {})".format, st.sampled_from(LINES), inner, WINDOWS),
        st.builds("Quantile({}, {}, {})".format, inner, WINDOWS, st.sampled_from([0.1, 0.2, 0.5, 0.8])),
        st.builds("{}({}, {}, {})".format, st.sampled_from(["Corr", "Cov"]), inner, inner, WINDOWS),
        st.builds("EMA({}, {})".format, inner, st.sampled_from([0.1, 0.5])),
        st.builds("{}({}, 0)".format, st.sampled_from(["Mean", "Std", "Max", "Ref", "Slope"]), inner),
        st.builds("If({}, {}, {})".format, joined, inner, other),
    )


TREES = st.recursive(st.sampled_from([f"${field}" for field in FIELDS]), _grown, max_leaves=6)


def random_expressions(number: int, first: int = 0) -> list[str]:
    """Different expressions, the same for the same seed."""
    found: dict[str, None] = {}

    @seed(first)
    @settings(
        max_examples=number * 4,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(TREES.filter(lambda text: "(" in text))
    def collect(text: str) -> None:
        found[text] = None

    collect()
    return list(found)[:number]
