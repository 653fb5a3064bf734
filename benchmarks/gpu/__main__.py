"""What CUDA does to the trainings, in at most nine minutes.

    python -m benchmarks.gpu pack --store ../shared/market/cn --industry ../shared/market/cn_industry.csv panel.safetensors
    python -m benchmarks.gpu run panel.safetensors --out gpu

`pack` writes a market into one file of at most 50 MiB. `run` needs that file and the package, no Qlib data directory and no
network; it does four things, as far as the time goes, and writes gpu.json and gpu.md:

1. a step of each backbone under each balancer on the device, against the CPU's, in float32 and bfloat16; whether a training
   repeats, and one that was taken up again ends with the same bits;
2. an epoch of CSI300 for LSTM, GATs and HIST, in parts, beside a bare loop and the authors' way, and how often a step waits
   for the device;
3. how many trainings side by side do more in the same time;
4. with the time that is left, epochs of MiM-StocR and STL, with their validation RankIC.

Without a GPU it runs on the CPU, which shows that it works and nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.gpu import correctness, side_by_side, speed
from benchmarks.gpu.panel_file import PanelFile, pack, read
from benchmarks.gpu.parts import Recipe, make
from qlib_ext.checks import UserError, above, integer

ROOT = Path(__file__).parents[2]
MODELS = {
    "MiM-StocR": Recipe("LSTM", "CQB", precision="bfloat16"),
    "STL": Recipe("LSTM", "EW", precision="bfloat16", momentum=False),
}


def run(path: Path, out: Path, minutes: float, hidden_size: int, tiny: bool) -> dict[str, Any]:
    """Do all four parts; what was found is written after each, so that an end of the time loses nothing."""
    started = time.monotonic()
    until = started + 60 * minutes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    file = read(path)
    if tiny:
        file = _shortened(file)
    found: dict[str, Any] = {"machine": _machine(device), "hidden_size": hidden_size, "tiny": tiny}

    def keep(name: str, value: Any) -> None:
        found[name] = value
        found.setdefault("seconds", {})[name] = round(time.monotonic() - started, 1)
        out.mkdir(parents=True, exist_ok=True)
        (out / "gpu.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        (out / "gpu.md").write_text(tables(found), encoding="utf-8")
        print(f"{found['seconds'][name]:7.1f} s  {name}", flush=True)

    cells = [("LSTM", "CQB"), ("HIST", "CAGrad")] if tiny else None
    keep("steps", correctness.steps(file, device, 16 if tiny else 32, cells))
    keep("resume", correctness.resumes(file, device, 16 if tiny else 32, 3 if tiny else 20))
    keep("epochs", speed.epochs(file, device, hidden_size, 3 if tiny else 60, 1 if tiny else 3))
    counts = (1,) if tiny else (1, 2, 4, 8, 15, 24)
    quarter = max(20.0, (until - time.monotonic()) / 2)
    keep(
        "side_by_side",
        side_by_side.throughput(path, device, hidden_size, counts, 2 if tiny else 150, quarter),
    )
    for name, recipe in MODELS.items():
        share = (until - time.monotonic()) / (2 if name == next(iter(MODELS)) else 1)
        keep(
            name, _trained(file, replace(recipe, hidden_size=hidden_size), device, share, 1 if tiny else 100)
        )
    return found


def _shortened(file: PanelFile, days: int = 8) -> PanelFile:
    """A file whose segments have a few days, from the middle on."""
    return replace(
        file, segments={name: each[len(each) // 2 :][:days] for name, each in file.segments.items()}
    )


def _trained(
    file: PanelFile, recipe: Recipe, device: torch.device, seconds: float, most: int
) -> list[dict[str, float]]:
    """Epochs until the time is over; a row each: losses, RankIC and IC of validation, seconds."""
    trainer = make(recipe, file, device)
    padded = torch.from_numpy(file.padded).to(device)
    train, valid = (file.panels(name, device, padded) for name in ("train", "valid"))
    rows: list[dict[str, float]] = []

    class TimeIsOver(Exception):
        pass

    until, begun = time.monotonic() + seconds, time.monotonic()

    def on_epoch(record: Mapping[str, float]) -> None:
        rows.append({name: value for name, value in record.items() if not name.startswith("balance/")})
        longest = (time.monotonic() - begun) / len(rows)
        if time.monotonic() + longest > until or len(rows) >= most:
            raise TimeIsOver

    with contextlib.suppress(TimeIsOver):
        trainer.fit(train, valid, on_epoch=on_epoch)
    return rows


def _machine(device: torch.device) -> dict[str, Any]:
    found = {"device": "CPU", "python": platform.python_version(), "torch": version("torch")}
    if device.type == "cuda":
        found |= {"device": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return found


def tables(found: Mapping[str, Any]) -> str:
    """What was found, for a reader."""
    parts = [f"# Trainings on {found['machine']['device']}\n"]
    if found["machine"]["device"] == "CPU":
        parts.append("A rehearsal on the CPU: it shows that the script runs, and says nothing of a GPU.\n")
    for name in ("steps", "resume", "epochs", "side_by_side", *MODELS):
        if found.get(name):
            table = pd.DataFrame(found[name])
            parts.append(f"## {name}\n\n{_markdown(table)}\n")
    if "steps" in found:
        wrong = sum(not row["right"] for row in found["steps"])
        parts.append(f"{len(found['steps']) - wrong} of {len(found['steps'])} steps are those of the CPU.\n")
    return "\n".join(parts)


def _markdown(table: pd.DataFrame) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.4g}"
        if isinstance(value, dict):
            return ", ".join(f"{name} {count:.2f}" for name, count in value.items()) or "none"
        return str(value)

    rows = [[*table.columns], ["---"] * len(table.columns)]
    rows += [[shown(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _pack(store: Path, industry: Path | None, path: Path, workflow: Path) -> int:
    import logging

    import jinja2
    import qlib
    import yaml

    from qlib_ext.data.dataset import DailyPanelDataset

    text = jinja2.Template(workflow.read_text(encoding="utf-8")).render(
        QLIB_DATA=str(store), PANEL_CACHE="off"
    )
    qlib.init(provider_uri=str(store), region="cn", kernels=1, logging_level=logging.WARNING)
    dataset = DailyPanelDataset(**yaml.safe_load(text)["task"]["dataset"]["kwargs"])
    panel = dataset.handler.panel
    return pack(
        dataset, path, None if industry is None else _industries(industry, panel.calendar, panel.instruments)
    )


def _industries(path: Path, calendar: pd.DatetimeIndex, instruments: Sequence[str]) -> np.ndarray:
    """The first level of each stock's industry by day, from a table of code, from and industry, each until the next row."""
    table = pd.read_csv(path, dtype=str)
    table["from"] = pd.to_datetime(table["from"])
    level = table["industry"].str[:2]
    names = {name: k for k, name in enumerate(sorted(level.unique()))}
    plane = np.full((len(calendar), len(instruments)), -1, np.int16)
    column = {code.upper(): k for k, code in enumerate(instruments)}
    for code, first, name in zip(table["code"], table["from"], level, strict=True):
        place = column.get(str(code).upper())
        if place is not None:  # rows are in the order of time
            plane[calendar.searchsorted(first) :, place] = names[name]
    return plane


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 where a step on the device is not that of the CPU, 2 where nothing could be measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packer = commands.add_parser("pack", help="write a market into one file")
    packer.add_argument("--store", type=Path, required=True, help="Qlib data directory")
    packer.add_argument(
        "--industry", type=Path, help="CSV of code, from, industry; the concepts of HIST and RSR"
    )
    packer.add_argument("--workflow", type=Path, default=ROOT / "workflows" / "mimstocr_csi300.yaml")
    packer.add_argument("file", type=Path)
    runner = commands.add_parser("run", help="measure")
    runner.add_argument("file", type=Path)
    runner.add_argument("--out", type=Path, default=Path("gpu"))
    runner.add_argument("--minutes", type=float, default=9.0)
    runner.add_argument("--hidden-size", type=int, default=128)
    runner.add_argument("--tiny", action="store_true", help="a rehearsal of a few steps")
    given = parser.parse_args(arguments)
    try:
        if given.command == "pack":
            size = _pack(given.store, given.industry, given.file, given.workflow)
            print(f"{given.file}: {size / 2**20:.1f} MiB")
            return 0
        above("minutes", given.minutes, 0)
        integer("hidden_size", given.hidden_size, 1)
        found = run(given.file, given.out, given.minutes, given.hidden_size, given.tiny)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if all(row["right"] for row in found["steps"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
