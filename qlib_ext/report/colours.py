"""Colours of series that have an order."""

from __future__ import annotations

# From the lowest to the highest, by way of grey: told apart by the colour-blind.
ENDS = ((0xB3, 0x58, 0x06), (0xA9, 0xAF, 0xB6), (0x1F, 0x5A, 0x93))


def ramp(count: int) -> list[str]:
    """Colours of `count` series from the lowest to the highest: orange, grey, blue."""
    found = []
    for k in range(count):
        place = 2 * k / (count - 1) if count > 1 else 2.0
        low = min(int(place), 1)
        mixed = (a + (b - a) * (place - low) for a, b in zip(ENDS[low], ENDS[low + 1], strict=True))
        found.append("#" + "".join(f"{round(part):02x}" for part in mixed))
    return found
