"""Run the grid of the MiM-StocR paper, and report it beside the paper's figures.

python -m benchmarks.paper run --store DIR --universes SSE50 --methods table1 --seeds 0 1 2 --epochs 20
python -m benchmarks.paper report
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from benchmarks.grid.command import Command, Defaults
from benchmarks.grid.plan import Budget


def _write(options: Namespace, uri: str) -> list[Path]:
    from benchmarks.paper.report import write

    return write(options.runs, options.work, options.out)


COMMAND = Command(
    name="paper",
    about=(__doc__ or "").split("\n")[0],
    defaults=Defaults(("SSE50", "CSI100", "CSI300"), ("LSTM", "GATs", "HIST"), ("table1",), Budget()),
    write=_write,
    keeps=True,
)
main = COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
