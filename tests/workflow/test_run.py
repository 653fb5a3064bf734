"""Qlib in a session of Python."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import qlib
from qlib.config import C
from qlib.data.cache import H
from qlib.data.data import ExpressionD

from qlib_ext.checks import UserError
from qlib_ext.features.expression_text import CheckedExpressionProvider
from qlib_ext.workflow.run import let_qlib_read


class TestLetQlibRead:
    def test_another_init_is_replaced_where_it_names_the_same_store_too(self, tmp_path: Path) -> None:
        qlib.init(provider_uri=str(tmp_path), region="us", logging_level=logging.ERROR)
        H["c"]["old"] = 1
        let_qlib_read(tmp_path, "cn")
        assert C["region"] == "cn"
        assert type(ExpressionD.__dict__["_provider"]) is CheckedExpressionProvider
        assert "old" not in H["c"].od
        H["c"]["own"] = 1
        let_qlib_read(tmp_path, "cn")  # its own is kept
        assert "own" in H["c"].od
        qlib.init(provider_uri=str(tmp_path), region="us", logging_level=logging.ERROR)
        let_qlib_read(tmp_path, "cn")
        assert C["region"] == "cn"

    def test_a_run_under_way_keeps_its_recorder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        qlib.init(provider_uri=str(tmp_path), region="us", logging_level=logging.ERROR)
        monkeypatch.setattr("qlib_ext.workflow.run.active_recorder", SimpleNamespace)
        with pytest.raises(UserError, match="a run is under way in this process"):
            let_qlib_read(tmp_path, "cn")
        assert C["region"] == "us"
