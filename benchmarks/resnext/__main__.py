"""Run the grid of the ResNeXt multi-task paper, and report it beside the paper's figures.

python -m benchmarks.resnext run --store us_market --epochs 2 --hidden-size 64
python -m benchmarks.resnext run --store us_market --backbones ResNeXt --methods ablations --seeds 0
python -m benchmarks.resnext report
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from benchmarks.grid.command import Command, Defaults
from benchmarks.grid.plan import Budget


def _write(options: Namespace, uri: str) -> list[Path]:
    from benchmarks.resnext.report import write

    return write(options.work, uri, COMMAND.name, options.out)


COMMAND = Command(
    name="resnext",
    about=(__doc__ or "").split("\n")[0],
    defaults=Defaults(
        universes=("stocks",),
        backbones=("LSTM", "DSN", "MCCNN", "Transformer", "ResNeXt"),
        methods=("joint",),
        budget=Budget(epochs=30, patience=8, hidden_size=256),
    ),
    write=_write,
)
main = COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
