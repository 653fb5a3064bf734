"""A market as one file: windows, labels, market values and industries of a universe, for a machine that has nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from qlib_ext.checks import UserError
from qlib_ext.data.panel import DailyPanels
from qlib_ext.features.alpha360 import Alpha360

LIMIT_BYTES = 50 * 2**20  # what can be sent along
LABELS = ("RETURN", "MOMENTUM")


@dataclass(frozen=True)
class PanelFile:
    """What a file holds.

    Attributes
    ----------
    features
        Alpha360, fitted.
    padded
        `[D + T - 1, S, F]` float32.
    calendar, instruments
        The D days and S codes.
    segments
        Name -> positions of its days in the calendar.
    present
        `[D, S]` bool.
    labels, raw_labels
        Label name -> `[D, S]` float32.
    market_value
        `[D, S]` float32, above 0 wherever `present`.
    industry
        `[D, S]` int16, -1 where none is known.
    """

    features: Alpha360
    padded: np.ndarray
    calendar: pd.DatetimeIndex
    instruments: tuple[str, ...]
    segments: Mapping[str, np.ndarray]
    present: np.ndarray
    labels: Mapping[str, np.ndarray]
    raw_labels: Mapping[str, np.ndarray]
    market_value: np.ndarray
    industry: np.ndarray

    def panels(self, segment: str, device: torch.device, padded: Tensor | None = None) -> DailyPanels:
        """The days of a segment on a device; `padded` where the market is there already."""
        industry = torch.from_numpy(self.industry.astype(np.int64)).to(device)
        groups = int(self.industry.max()) + 1

        def concepts(day: int, columns: Tensor) -> Tensor:
            own = industry[day, columns]
            return torch.nn.functional.one_hot(own + 1, groups + 1)[:, 1:].float()

        return DailyPanels(
            features=self.features,
            padded=torch.from_numpy(self.padded).to(device) if padded is None else padded,
            calendar=self.calendar,
            instruments=self.instruments,
            days=self.segments[segment],
            present=self.present,
            labels=self.labels,
            raw_labels=self.raw_labels,
            market_value=self.market_value,
            concepts=concepts if groups else None,
        )


def pack(dataset: Any, path: Path, industry: np.ndarray | None = None) -> int:
    """Write what a `DailyPanelDataset` on Alpha360 gives to a training; the size of the file.

    Bars that no window of a member sees are left out, and so are market values that are not known.

    Parameters
    ----------
    dataset
        With the labels RETURN and MOMENTUM.
    path
        The file.
    industry
        `[D, S]`, -1 where none is known; None for none at all.

    Raises
    ------
    UserError
        If the dataset is on other features, or the file becomes larger than 50 MiB.
    """
    features = dataset.handler.features
    if type(features) is not Alpha360:
        raise UserError(f"a panel file is of Alpha360, found {type(features).__name__}")
    train = dataset.panels("train")
    padded = train.padded.numpy()
    present, lag = np.asarray(train._present), features.lookback_days - 1
    seen = np.zeros(padded.shape[:2], dtype=bool)
    for before in range(lag + 1):
        seen[before : before + len(present)] |= present
    days = np.concatenate([dataset.days[name] for name in dataset.segments])
    used = np.zeros(len(present), dtype=bool)
    used[days] = True
    there = present & used[:, None]
    values = dataset.handler.label_planes("learn"), dataset.handler.label_planes("raw")
    own = np.full(present.shape, -1, np.int16) if industry is None else industry.astype(np.int16)
    worth = np.ones(present.shape, np.float32)
    if dataset._side.market_value is not None:
        worth = dataset._side.market_value
    content = {
        "seen": np.packbits(seen),
        "present": np.packbits(present),
        "bars": padded[seen],
        "median": features.median,
        "scale": features.scale,
        "market_value": np.asarray(worth)[there],
        "industry": own[there],
        **{f"segment/{name}": dataset.days[name].astype(np.int32) for name in dataset.segments},
        **{f"label/{name}": values[0][name][there] for name in LABELS},
        **{f"raw/{name}": values[1][name][there] for name in LABELS},
    }
    facts = {
        "fields": list(features.names),
        "lookback_days": features.lookback_days,
        "calendar": [f"{day:%Y-%m-%d}" for day in train.calendar],
        "instruments": list(train.instruments),
        "segments": list(dataset.segments),
    }
    content = {name: np.ascontiguousarray(each) for name, each in content.items()}
    save_file(content, path, metadata={"facts": json.dumps(facts)})
    size = path.stat().st_size
    if size > LIMIT_BYTES:
        path.unlink()
        raise UserError(
            f"a panel file must be at most {LIMIT_BYTES / 2**20:.0f} MiB, this one would be {size / 2**20:.0f}: take fewer "
            "stocks or years"
        )
    return size


def read(path: Path) -> PanelFile:
    """Read a panel file.

    Raises
    ------
    UserError
        If it is none.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads(file.metadata()["facts"])
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no panel file ({error}): `python -m benchmarks.gpu pack` makes one"
        ) from None
    calendar, instruments = pd.DatetimeIndex(facts["calendar"]), tuple(facts["instruments"])
    shape, steps = (len(calendar), len(instruments)), facts["lookback_days"]
    features = Alpha360(facts["fields"], steps, optional_fields=facts["fields"][:0])
    features.restore(content["median"], content["scale"])
    seen = _mask(content["seen"], (shape[0] + steps - 1, shape[1]))
    padded = np.full((*seen.shape, len(facts["fields"])), np.nan, np.float32)
    padded[seen] = content["bars"]
    segments = {name: content[f"segment/{name}"].astype(np.int64) for name in facts["segments"]}
    used = np.zeros(shape[0], dtype=bool)
    used[np.concatenate([*segments.values()])] = True
    present = _mask(content["present"], shape) & used[:, None]

    def plane(name: str, empty: float, dtype: type = np.float32) -> np.ndarray:
        full: np.ndarray = np.full(shape, empty, dtype)
        full[present] = content[name]
        return full

    return PanelFile(
        features=features,
        padded=padded,
        calendar=calendar,
        instruments=instruments,
        segments=segments,
        present=present,
        labels={name: plane(f"label/{name}", np.nan) for name in LABELS},
        raw_labels={name: plane(f"raw/{name}", np.nan) for name in LABELS},
        market_value=plane("market_value", 1.0),
        industry=plane("industry", -1, np.int16),
    )


def _mask(packed: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)
