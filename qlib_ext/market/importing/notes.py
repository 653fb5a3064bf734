"""What was mended, changed or left out while data were read, counted, with the first places named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

NAMED = 3  # places that a sentence names


class Notes:
    """Sentences for the user; the same thing in many places becomes one sentence with a count."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._places: dict[str, list[str]] = {}
        self._seen: dict[str, set[str]] = {}

    def add(self, sentence: str, count: int = 1, places: Iterable[str] = ()) -> None:
        """Count `sentence`, in which `{row}` stands for the count and the word, and name the first places.

        A count of 0 is nothing to note. The places are drawn only while there is room for them.
        """
        if count <= 0:
            return
        self._counts[sentence] = self._counts.get(sentence, 0) + int(count)
        named = self._places.setdefault(sentence, [])
        for place in places:
            if len(named) >= NAMED:
                break
            if place not in named:
                named.append(place)

    def gather(self, sentence: str, things: Iterable[str]) -> None:
        """Count the different `things`, however often each comes up."""
        seen = self._seen.setdefault(sentence, set())
        new = [thing for thing in dict.fromkeys(things) if thing not in seen]
        seen.update(new)
        self.add(sentence, len(new), new)

    def count(self, sentence: str) -> int:
        """How often `sentence` was noted."""
        return self._counts.get(sentence, 0)

    def places(self, sentence: str) -> list[str]:
        """The first places of `sentence`."""
        return list(self._places.get(sentence, []))

    def sentences(self) -> tuple[str, ...]:
        """The notes in the order in which they first came up."""
        lines = []
        for sentence, count in self._counts.items():
            places = self._places[sentence]
            first = "first " if count > len(places) else ""
            where = f" ({first}{'; '.join(places)})" if places else ""
            counted = re.sub(r"\{(\w+)\}", rf"{count:,} \1{'' if count == 1 else 's'}", sentence)
            lines.append(counted + where)
        return tuple(lines)


def at(code: str, days: np.ndarray) -> Iterator[str]:
    """Places for a note: an instrument on some days."""
    return (f"{code} {day}" for day in days)
