"""Files of factors, right and wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.factors.reading import is_workflow, read_factors
from qlib_ext.factors.table import FactorTable
from qlib_ext.features.expressions import Expressions

CODES = {"SH600000", "SZ000001"}


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


class TestExpressions:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("f.yaml", "ROC: Ref($close, 5)/$close\nCANDLE: ($close-$open)/$open\n"),
            ("f.yml", "expressions:\n  ROC: Ref($close, 5)/$close\n  CANDLE: ($close-$open)/$open\n"),
            ("f.txt", "# mine\nROC: Ref($close, 5)/$close\n\n  CANDLE: ($close-$open)/$open\n"),
        ],
    )
    def test_with_names(self, tmp_path: Path, name: str, text: str) -> None:
        found = read_factors(written(tmp_path, name, text), CODES)
        assert isinstance(found, Expressions)
        assert found.expressions == {"ROC": "Ref($close, 5)/$close", "CANDLE": "($close-$open)/$open"}

    @pytest.mark.parametrize(
        ("name", "text"), [("f.yaml", "- $close/$open\n- $high\n"), ("f.txt", "$close/$open\n$high\n")]
    )
    def test_without_names(self, tmp_path: Path, name: str, text: str) -> None:
        assert read_factors(written(tmp_path, name, text), CODES).names == ("$close/$open", "$high")

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("f.yaml", "", "must hold at least one expression, found none"),
            ("f.txt", "# nothing\n", "must hold at least one expression, found none"),
            ("f.yaml", "a: [1", "is no YAML"),
            ("f.yaml", "a: 3\n", "`expressions.a` must be a str"),
            ("f.yaml", "A: Rff($close, 1)\n", "did you mean"),
            ("f.txt", "A: $close\nA: $open\n", "must have a name of its own, found 'A' twice"),
        ],
    )
    def test_wrong(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            read_factors(written(tmp_path, name, text), CODES)


class TestKinds:
    def test_a_workflow_is_known_by_its_keys(self, tmp_path: Path) -> None:
        text = "qlib_init:\n  provider_uri: '{{ QLIB_DATA }}'\ntask: {}\n"
        assert is_workflow(written(tmp_path, "w.yaml", text))
        assert not is_workflow(written(tmp_path, "f.yaml", "TASK: $close\n"))
        assert not is_workflow(written(tmp_path, "f.csv", "task:\n"))

    def test_no_file_and_no_kind(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="must be a file, found none at"):
            is_workflow(tmp_path / "nowhere.yaml")
        with pytest.raises(UserError, match=r"ends in \.yaml, .*, found `f\.xlsx`"):
            is_workflow(written(tmp_path, "f.xlsx", ""))


FRAME = pd.DataFrame(
    {
        "datetime": pd.to_datetime(["2020-01-02", "2020-01-02", "2020-01-03"]),
        "instrument": ["SH600000", "SZ000001", "SH600000"],
        "a": [1.0, np.nan, 3.0],
        "b": [4, 5, 6],
    }
)


class TestReady:
    @pytest.mark.parametrize("kind", ["parquet", "PARQUET", "index", "csv", "csv.gz"])
    def test_each_kind_of_file(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"f.{'parquet' if kind == 'index' else kind}"
        if kind == "index":
            FRAME.set_index(["datetime", "instrument"]).to_parquet(path)
        elif kind.lower() == "parquet":
            FRAME.to_parquet(path)
        else:
            FRAME.to_csv(path, index=False)
        table = read_factors(path, CODES)
        assert isinstance(table, FactorTable)
        assert table.names == ("a", "b")
        np.testing.assert_array_equal(table.values, [[1, 4], [np.nan, 5], [3, 6]])
        calendar = pd.DatetimeIndex(["2020-01-01", "2020-01-02", "2020-01-03"])
        places = table.places(calendar, ("SZ000001", "SH600000"))
        assert places.tolist() == [[-1, -1], [1, 0], [-1, 2]]

    def test_codes_and_columns_as_vendors_have_them(self, tmp_path: Path) -> None:
        text = "trade_date;ts_code;value\n20200102;600000.SH;1\n20200102;000001.SZ;2\n20200103;000001;3\n"
        table = FactorTable(written(tmp_path, "f.csv", text), CODES)
        assert table.names == ("value",)
        assert [*table.instruments] == ["SH600000", "SZ000001", "SZ000001"]
        assert table.notes == ["3 codes written as the store does, such as SZ000001"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a,b\n1,2\n", r"must have a column of days \(`datetime`\) and one of codes"),
            ("datetime,instrument\n2020-01-02,SH600000\n", "at least one factor and one row"),
            ("datetime,instrument,a\n", "at least one factor and one row"),
            ("datetime,instrument,a\nsoon,SH600000,1\n", "must have a day such as"),
            ("datetime,instrument,a\n2020-01-02,,1\n", "has no `instrument`"),
            (
                "datetime,instrument,a\n2020-01-02,SH600000,high\n",
                "numbers in the column `a`, found 'high' in row 1",
            ),
            (
                "datetime,instrument,a\n2020-01-02,SH600000,1\n2020-01-02,sh600000,2\n",
                "another for SH600000 on 2020-01-02 in row 2",
            ),
        ],
    )
    def test_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            FactorTable(written(tmp_path, "f.csv", text), CODES)

    def test_what_is_no_parquet(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot be read"):
            FactorTable(written(tmp_path, "f.parquet", "no"), CODES)
