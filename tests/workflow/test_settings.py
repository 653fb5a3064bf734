"""The keys of a workflow."""

from __future__ import annotations

from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.workflow.settings import check_numbers, check_settings

GOOD: dict[str, Any] = {"qlib_init": {"provider_uri": "x", "region": "cn"}, "task": {}}


class TestSettings:
    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"experiment_name": "x", "sys": {"rel_path": "."}},
            {"market": "csi300", "benchmark": "SH000300"},  # anchors, as in Qlib's own examples
            {"data_handler_config": {"a": 1}, "x-note": "what a person notes"},
        ],
    )
    def test_what_qlib_and_people_write_passes(self, more: dict[str, Any]) -> None:
        check_settings({**GOOD, **more})

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ([GOOD], "a workflow must be a mapping"),
            ({**GOOD, "taks": {}}, r"no key `taks` \(did you mean task\?\)"),
            (
                {**GOOD, "note": "x"},
                "no key `note`; it has experiment_name, qlib_init, task, sys, BASE_CONFIG_PATH",
            ),
            ({"task": {}}, "must have `qlib_init`, found task"),
            ({**GOOD, "experiment_name": " "}, "`experiment_name` must be a name, found ' '"),
            ({**GOOD, "experiment_name": "a\nwarning: b"}, "`experiment_name` must be a name, found 'a"),
            (
                {**GOOD, "experiment_name": "a" * 501},
                "`experiment_name` must have at most 500 letters, found 501",
            ),
            (
                {**GOOD, "qlib_init": {"kernels": 10**6}},
                "`qlib_init.kernels` must be at most 1,024, found 1000000",
            ),
            (
                {**GOOD, "qlib_init": {"mem_cache_size_limit": 10**30}},
                r"`qlib_init.mem_cache_size_limit` must be a number within 1e\+15, found 1000000",
            ),
            ({**GOOD, "qlib_init": "cn"}, "`qlib_init` must be a mapping"),
            (
                {**GOOD, "qlib_init": {"region": "de"}},
                "`qlib_init.region` must be one of cn, tw, us, found 'de'",
            ),
            (
                {**GOOD, "qlib_init": {"kernel": 1}},
                r"`qlib_init` has no place for `kernel` \(did you mean kernels",
            ),
            (
                {**GOOD, "qlib_init": {"provider_uri": 3}},
                "`qlib_init.provider_uri` must be a str, found int: 3",
            ),
            (
                {**GOOD, "qlib_init": {"custom_ops": [{"class": "Op", "module_path": "evil"}]}},
                r"`qlib_init.custom_ops\[0\].class` must be of one of the packages",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, config: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            check_settings(config)


class TestNumbers:
    @pytest.mark.parametrize("value", [1e16, -1e16, 10**400, float("inf")])
    def test_none_is_beyond_any_use_however_deep(self, value: float) -> None:
        with pytest.raises(UserError, match=r"`task\.a\[1\]\.b` must be a number within 1e\+15, found"):
            check_numbers({"a": [1, {"b": value}]}, "task")

    def test_what_means_something_passes(self) -> None:
        check_numbers({"a": [1e15, -1e15, float("nan"), True, "1e99", None, {"b": 0}]}, "task")

    def test_aliases_of_aliases_are_looked_at_once(self) -> None:
        part: list[Any] = [1]
        for _ in range(60):
            part = [part, part]
        check_numbers(part, "task")
