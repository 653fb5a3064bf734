"""Spells: a code, the first day and the last day of something that holds for a while."""

from __future__ import annotations

# What the second day of a row means: the last day of the spell, or the first day after it.
UNTIL = ("last-day", "first-day-out")
