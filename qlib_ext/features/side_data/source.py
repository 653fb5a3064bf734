"""Sources of side data: what a dataset needs beside bars, and what to take where a store does not have it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore


class Source(ABC):
    """One way to come by side data.

    Attributes
    ----------
    way_out
        What to do where a store lacks what it takes, as the end of a sentence.
    """

    way_out = "bring a table in (`qlib-ext data side-data DIR NAME FILE`), or take FirstAvailable"

    def lacks(self, store: QlibStore) -> str | None:
        """What the store would need for it, as the rest of a sentence; None where it has everything."""
        return None

    @abstractmethod
    def describe(self, store: QlibStore) -> dict[str, Any]:
        """What the data are made of, ready for JSON: equal for equal data, wherever the store lies.

        `source` says it in a few words.
        """

    def notes(self, store: QlibStore) -> list[str]:
        """What a reader of the results should know, as sentences."""
        return []


S = TypeVar("S", bound=Source)


class Chain(Source, Generic[S]):
    """The first of several sources that the store has what it takes for.

    A source whose data are there but faulty is an error, never passed over.

    Parameters
    ----------
    what
        What the sources give, for messages.
    sources
        In order.

    Raises
    ------
    UserError
        If there is no source; when one is chosen, if the store lacks what each of them needs.
    """

    def __init__(self, what: str, sources: Sequence[S]) -> None:
        if not sources:
            raise UserError("`sources` must name at least one source, found none")
        self.what = what
        self.sources = list(sources)

    def lacks(self, store: QlibStore) -> str | None:
        _, reasons = self._first(store)
        return "; ".join(reasons) if len(reasons) == len(self.sources) else None

    def describe(self, store: QlibStore) -> dict[str, Any]:
        return self.chosen(store).describe(store)

    def notes(self, store: QlibStore) -> list[str]:
        chosen = self.chosen(store)
        _, reasons = self._first(store)
        instead = [f"{self.what}: {chosen.describe(store)['source']}, since {'; '.join(reasons)}"]
        return [*(instead if reasons else []), *chosen.notes(store)]

    def chosen(self, store: QlibStore) -> S:
        """The source that serves this store."""
        source, reasons = self._first(store)
        if source is None:
            raise UserError(f"no source of {self.what} fits the store `{store.root}`: {'; '.join(reasons)}")
        return source

    def _first(self, store: QlibStore) -> tuple[S | None, list[str]]:
        """The first source that fits, and why those before it do not."""
        reasons: list[str] = []
        for source in self.sources:
            reason = source.lacks(store)
            if reason is None:
                return source, reasons
            reasons.append(reason)
        return None, reasons
