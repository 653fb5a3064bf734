"""What a store lacks is told before any long work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qlib_ext.data.store_check import require
from qlib_ext.market.store import QlibStore, StoreError


class TestRequire:
    def test_all_that_is_missing_stands_in_one_message(self, store: QlibStore) -> None:
        with pytest.raises(StoreError) as error:
            require(
                store, universe="csi300", fields=["close", "amount"], instruments=["SH600000", "sh000903"]
            )
        message = str(error.value)
        assert str(store.root) in message
        assert "no universe `csi300`" in message
        assert "no field `amount`" in message
        assert "no bars of the benchmark `sh000903` (features/sh000903/)" in message
        assert "`qlib-ext data sample --out DIR`" in message
        assert "`close`" not in message
        assert "SH600000" not in message

    def test_a_field_of_a_single_stock_is_there(self, tiny: Any, tmp_path: Path) -> None:
        root = tiny.write(tmp_path / "store").root
        for path in (root / "features").glob("*/vwap.day.bin"):
            if path.parent.name != "sh600007":
                path.unlink()
        require(QlibStore(root), fields=["vwap"])
        (root / "features" / "sh600007" / "vwap.day.bin").unlink()
        with pytest.raises(StoreError, match="no field `vwap`"):
            require(QlibStore(root), fields=["vwap"])
