from __future__ import annotations

from qlib_ext.records.makers import makers


def test_records_and_the_model_say_what_they_make() -> None:
    found = makers()
    assert found["data/summary.json"] == "qlib_ext.records.signal.SignalRecord"
    assert found["data/quality.json"] == "qlib_ext.records.quality.QualityRecord"
    assert found["portfolio/industries.csv"] == "qlib_ext.records.portfolio.PortfolioRecord", "where it can"
    assert found["training/history.parquet"] == "qlib_ext.model.multi_task.MultiTaskModel"
    assert "weather/rain.csv" not in found


def test_no_artifact_is_made_by_two() -> None:
    from qlib_ext.records.base import Record

    every = [
        path
        for kind in Record.__subclasses__()
        if kind.__module__.startswith("qlib_ext.records.")
        for path in (*kind.makes, *kind.may_make)
    ]
    assert len({*every}) == len(every)
    assert {*every} < {*makers()}
