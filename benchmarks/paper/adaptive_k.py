"""Adaptive k of the training days under other readings of the momentum line, to lay beside the paper's Figure 5.

python -m benchmarks.paper.adaptive_k --store ../shared/market/cn --universe csi300
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.data.processors.momentum_line import BOUNCE, POSITIVE, MomentumLine, momentum_class
from qlib_ext.metrics.ndcg import adaptive_k
from qlib_ext.records.columns import matrices

READINGS = {
    "as here: 7 values to t + 2, gap 4": MomentumLine(),
    "6 values": MomentumLine(points=6),
    "to t + 1": MomentumLine(horizon_days=1),
    "gap 6, 5 values": MomentumLine(lookback_days=6, length_days=4),
    "gap 1": MomentumLine(lookback_days=1),
    "gap 10": MomentumLine(lookback_days=10),
    "3 values": MomentumLine(points=3),
}


def table(universe: str, start: str, end: str) -> pd.DataFrame:
    """A row a reading: quartiles of k over the days, and how many stocks of a day are Bounce and Positive."""
    from qlib.data import D

    wanted = dict.fromkeys(field for line in READINGS.values() for field in line.expressions()[0])
    values = D.features(D.instruments(universe), [*wanted], start, end)
    values = values.reorder_levels(["datetime", "instrument"]).sort_index()
    rows = {}
    for name, line in READINGS.items():
        classes = pd.Series(momentum_class(values[line.expressions()[0]].to_numpy()), values.index)
        _, _, (by_day,) = matrices(values.index, classes)
        k = adaptive_k(by_day, 0.2)
        rows[name] = {
            **dict(zip(("25 %", "median", "75 %"), np.percentile(k[k > 0], [25, 50, 75]), strict=True)),
            "Bounce a day": (by_day == BOUNCE).sum(axis=1).mean(),
            "Positive a day": (by_day == POSITIVE).sum(axis=1).mean(),
        }
    return pd.DataFrame(rows).T.round(0).astype(int).rename_axis(index="reading")


def main(given: Sequence[str] | None = None) -> int:
    """Run as a command."""
    import qlib

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--store", type=Path, required=True, help="Qlib data directory")
    parser.add_argument("--universe", default="csi300")
    parser.add_argument("--start", default="2010-01-04")
    parser.add_argument(
        "--end", default="2014-12-29", help="the last day whose line ends in the training days"
    )
    options = parser.parse_args(given)
    qlib.init(provider_uri=str(options.store), region="cn", kernels=1)
    found = table(options.universe, options.start, options.end)
    print(found.reset_index().to_markdown(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
