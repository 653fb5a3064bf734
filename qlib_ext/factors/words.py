"""What a scorecard says, in sentences: for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator

from qlib_ext.checks import counted
from qlib_ext.factors.scorecard import ALIKE, LEVEL, Scorecard

MARK = "LOOK-AHEAD: "  # with which feature sets begin such a note
NAMED = 8  # factors that a sentence names


def alarms(found: Scorecard) -> Iterator[str]:
    """What looks ahead: each factor that does, and what its feature set says of itself beyond that."""
    reasons = found.ahead["look_ahead"]
    yield from (f"{name}: {why}" for name, why in reasons.items())
    for note in found.notes:
        sentence = note.removeprefix(MARK)
        if note.startswith(MARK) and sentence not in set(reasons):
            yield sentence


def remarks(found: Scorecard) -> Iterator[str]:
    """What else a reader should know, as sentences."""
    yield from (note for note in found.notes[int(found.test_was_read) :] if not note.startswith(MARK))


def summary(found: Scorecard) -> Iterator[str]:
    """How many were tried and tell, how lucky the best may be, and how different they are."""
    tried, best = len(found.table), found.best
    told = f"{counted(tried, 'factor')} {'was' if tried == 1 else 'were'} tried"
    if len(found.ahead):
        told += f" ({len(found.ahead):,} with look-ahead, which count for nothing)"
    unmeasured = [*found.table.index[found.table["place"] == 0].difference(found.ahead.index)]
    if unmeasured:
        more = f" and {len(unmeasured) - NAMED:,} more" if len(unmeasured) > NAMED else ""
        told += f" ({', '.join(unmeasured[:NAMED])}{more} could not be measured: no values, or the same for all stocks)"
    yield (
        f"{told}; {found.tell:,} foretell the label by q of at most {LEVEL:.0%} (Benjamini and Hochberg, over all that were "
        "tried)."
    )
    if len(best):
        yield (
            f"The surest is {best.index[0]} with |t| = {abs(best['t'].iloc[0]):.1f}; the best of {tried:,} without any skill "
            f"would show about {found.luckiest:.1f}."
        )
        firsts = [*found.best_of_clusters.index]
        more = f" and {len(firsts) - NAMED:,} more" if len(firsts) > NAMED else ""
        yield (
            f"All together are as diverse as {found.effective_number:.1f} independent ones, in {counted(len(firsts), 'cluster')} of "
            f"|rank correlation| {ALIKE:g} and above; the surest of each: {', '.join(firsts[:NAMED])}{more}."
        )
