from __future__ import annotations

from qlib_ext.tracking.parameters import parameters


def test_a_name_that_mlflow_would_refuse_is_cut_and_told_from_others() -> None:
    first, second = parameters({"record": {"a" * 300: {"x": 1, "y": 2}}})
    assert (first.value, second.value) == ("1", "2")
    assert first.key != second.key
    assert max(len(first.key), len(second.key)) == 250
    assert first.key.startswith("record.aaaa")
