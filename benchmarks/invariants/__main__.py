"""Backtests by exchange rules over thousands of made markets, and what must hold of each.

    python -m benchmarks.invariants --cases 10000 --out invariants.jsonl

A block is a market of 40 days, in which 5 exchanges trade 20 cases each: random orders of any size, or a TopkDropout or the
target weights of a portfolio on random scores with ties and gaps. Its result is a line of the file; a run that is taken up
again leaves out the blocks that are there. Checked of every case, against rules that are written down a second time
(`plain_rules.py`): cash is never negative; cash, holdings, value, turnover and cost of every day are what the trades make them;
nothing is bought at the upper or sold at the lower price limit or traded while suspended; nothing is sold on the day it was
bought; purchases are of whole lots; the cost of each trade is commission with its minimum, stamp duty and transfer fee of the
day.

Exit status: 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.invariants.cases import BLOCK, cases
from benchmarks.invariants.checks import violations


def run_block(seed: int) -> dict[str, object]:
    """All cases of a market: what was found, and how much was looked at."""
    found: list[str] = []
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder) / "store", seed):
            said, looked_at = violations(case)
            found += said
            counted += looked_at
            counted["cases"] += 1
    return {"seed": seed, "violations": found, "counted": dict(counted)}


def main() -> int:
    """Run what is left of the cases and tell what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000, help=f"rounded up to blocks of {BLOCK}")
    parser.add_argument(
        "--out", type=Path, default=Path("invariants.jsonl"), help="a line for each block that is done"
    )
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no block after so long")
    given = parser.parse_args()
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    done = {block["seed"]: block for block in map(json.loads, lines)}
    begun = time.monotonic()
    wanted = range(-(-given.cases // BLOCK))
    for seed in wanted:
        if seed in done:
            continue
        if time.monotonic() - begun > given.seconds:
            break
        done[seed] = run_block(seed)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[seed]) + "\n")
        print(f"block {seed + 1} of {len(wanted)}: {len(done[seed]['violations'])} violations", flush=True)
    blocks = [done[seed] for seed in wanted if seed in done]
    total: Counter[str] = Counter()
    for block in blocks:
        total += Counter(block["counted"])
    found = [said for block in blocks for said in block["violations"]]
    for name, number in sorted(total.items()):
        print(f"{number:>10,}  {name}")
    print(f"{len(found):>10,}  violations" + "".join(f"\n  {said}" for said in found[:20]))
    if len(blocks) < len(wanted):
        print(f"{len(wanted) - len(blocks)} blocks are left: run the same command again")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
