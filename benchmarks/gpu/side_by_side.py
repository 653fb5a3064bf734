"""How many trainings a device takes at once until it does no more in the same time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing

from benchmarks.gpu.panel_file import PanelFile, read
from benchmarks.gpu.parts import Recipe, make, positions


def throughput(
    path: Path,
    device: torch.device,
    hidden_size: int,
    counts: tuple[int, ...],
    steps: int,
    most_seconds: float,
) -> list[dict[str, Any]]:
    """A row for each way and number K of trainings: steps a second of all together, and times those of one.

    Ways: `processes`, one training each; `streams`, threads of one process with a CUDA stream each. A way ends when a larger
    number does not do at least 5% more, or the time is over.
    """
    rows: list[dict[str, Any]] = []
    until = time.monotonic() + most_seconds
    for way, run in (("streams", _streams), ("processes", _processes)):
        first = best = 0.0
        for count in counts:
            if time.monotonic() > until:
                break
            rate = run(path, device, hidden_size, count, steps)
            first = first or rate
            rows.append({"way": way, "trainings": count, "steps_per_second": rate, "times_one": rate / first})
            if rate < 1.05 * best:
                break
            best = rate
    return rows


def _train(
    file: PanelFile, device: torch.device, hidden_size: int, seed: int, steps: int, ready: Any
) -> None:
    """Some steps of a training, once all are ready."""
    trainer = make(Recipe("LSTM", "CQB", hidden_size, "bfloat16", seed=seed), file, device)
    panels = file.panels("train", device)
    days = positions(trainer, panels)
    trainer.network.train()
    trainer._step(panels, int(days[0]))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    ready.wait()
    for step in range(steps):
        trainer._step(panels, int(days[(seed + step) % len(days)]))
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _streams(path: Path, device: torch.device, hidden_size: int, count: int, steps: int) -> float:
    file, ready = read(path), threading.Barrier(count + 1)

    def work(seed: int) -> None:
        if device.type == "cuda":
            with torch.cuda.stream(torch.cuda.Stream(device)):
                _train(file, device, hidden_size, seed, steps, ready)
        else:
            _train(file, device, hidden_size, seed, steps, ready)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(count)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return count * steps / (time.perf_counter() - started)


def _in_process(path: Path, kind: str, hidden_size: int, seed: int, steps: int, ready: Any) -> None:
    torch.set_num_threads(1)
    _train(read(path), torch.device(kind), hidden_size, seed, steps, ready)


def _processes(path: Path, device: torch.device, hidden_size: int, count: int, steps: int) -> float:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(count + 1)
    started_by = [
        context.Process(target=_in_process, args=(path, str(device), hidden_size, seed, steps, ready))
        for seed in range(count)
    ]
    for process in started_by:
        process.start()
    ready.wait(timeout=300)
    started = time.perf_counter()
    for process in started_by:
        process.join()
    if any(process.exitcode for process in started_by):
        raise RuntimeError(f"{count} processes: one of them ended with {[p.exitcode for p in started_by]}")
    return count * steps / (time.perf_counter() - started)
