"""A dataset without what a model would see: labels, members and coverage, for scores that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qlib_ext.config.build import dotted, in_one_form
from qlib_ext.data.config import SOURCES
from qlib_ext.data.handlers.arguments import build_labels, build_processors
from qlib_ext.data.handlers.panel import LABELS
from qlib_ext.features.no_features import NoFeatures

# Of a dataset, what only a model reads, and the cache that would hold nothing worth a file.
OF_MODEL = (*SOURCES, "cache")
OF_FEATURES = ("tradable_prices", "cache")  # the same of a handler


def scores_only(dataset: Any) -> dict[str, Any]:
    """The configuration of a dataset with `NoFeatures` in the place of its features.

    Parameters
    ----------
    dataset
        `{class, kwargs}` of a `DailyPanelDataset`, as a workflow has it.

    Raises
    ------
    UserError
        If it is of another shape.
    """
    config = in_one_form(dataset, "dataset")
    handler = in_one_form(config["kwargs"].get("handler"), "dataset.handler")
    kwargs = {key: value for key, value in handler["kwargs"].items() if key not in OF_FEATURES}
    kwargs["features"] = no_features(kwargs)
    kept = {key: value for key, value in config["kwargs"].items() if key not in OF_MODEL}
    return {**config, "kwargs": {**kept, "handler": {**handler, "kwargs": kwargs}}}


def no_features(handler: Mapping[str, Any]) -> dict[str, Any]:
    """`NoFeatures` that reads the fields of a handler's labels; `handler` has its arguments."""
    processors = [
        processor
        for kind in ("infer", "learn")
        for processor in build_processors(handler.get(f"{kind}_processors") or [], kind)
    ]
    labels = build_labels(handler.get("labels") or LABELS, processors)
    fields = sorted({"close", *(field for label in labels.values() for field in label.fields)})
    return {"class": dotted(NoFeatures), "kwargs": {"fields": fields}}
