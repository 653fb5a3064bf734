"""What the audit says: kinds of fault, findings, and the collector that the checks write to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """One kind of fault that the audit looks for.

    Attributes
    ----------
    name : str
        Such as `bin-truncated`; it never changes once published, since scripts match on it.
    severity : str
        `error` (results would be wrong, or the workflow fails), `warning` (a person should look) or `note`.
    what : str
        What is wrong, in one sentence without its point.
    why : str
        Why it matters.
    fix : str or None
        What `--fix` does about it; None where nothing is safe.
    """

    name: str
    severity: str
    what: str
    why: str
    fix: str | None = None


@dataclass(frozen=True)
class Finding:
    """One fault of one kind in one place.

    Attributes
    ----------
    kind, severity : str
        Name and severity of its `Kind`.
    message : str
        What was found, with the first numbers.
    file : str or None
        Path within the store, with forward slashes.
    instrument : str or None
        Upper-case code.
    date : str or None
        First day that shows it, `YYYY-MM-DD`.
    count : int
        How often the place shows it (days, rows, files: the message says which), at least 1.
    fix : str or None
        What `--fix` does about it, None where it leaves it.
    """

    kind: str
    severity: str
    message: str
    file: str | None = None
    instrument: str | None = None
    date: str | None = None
    count: int = 1
    fix: str | None = None


@dataclass(frozen=True)
class QualityReport:
    """The answer of an audit.

    Attributes
    ----------
    findings : tuple of Finding
        Errors first, then warnings, then notes; within these by kind, in the order of the checks.
    kinds : tuple of Kind
        Every kind that was looked for, found or not.
    store : mapping
        Facts: `root`, `days`, `first_day`, `last_day`, `instruments`, `fields`, `universes`, `region`.
    """

    findings: tuple[Finding, ...]
    kinds: tuple[Kind, ...]
    store: Mapping[str, Any]

    @property
    def counts(self) -> dict[str, int]:
        """Findings by severity: every severity, errors first."""
        return {
            severity: sum(finding.severity == severity for finding in self.findings)
            for severity in SEVERITIES
        }

    @property
    def has_errors(self) -> bool:
        """Whether results on this store would be wrong, or a workflow fail."""
        return self.counts["error"] > 0

    def of(self, kind: str) -> list[Finding]:
        """The findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain mappings, lists, texts and numbers, for `json.dumps`."""
        return {
            "store": dict(self.store),
            "counts": self.counts,
            "kinds": [asdict(kind) for kind in self.kinds],
            "findings": [asdict(finding) for finding in self.findings],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> QualityReport:
        """The audit that `to_json` wrote."""
        return cls(
            findings=tuple(Finding(**finding) for finding in document["findings"]),
            kinds=tuple(Kind(**kind) for kind in document["kinds"]),
            store=dict(document["store"]),
        )


class Findings:
    """Collects what the checks find, and fills in what a finding takes from its kind.

    Parameters
    ----------
    kinds
        Every kind that may be found; another one is a mistake of the check and raises KeyError.
    """

    def __init__(self, kinds: Iterable[Kind]):
        self.kinds = {kind.name: kind for kind in kinds}
        self._found: list[Finding] = []

    def add(
        self,
        kind: str,
        message: str,
        file: str | None = None,
        instrument: str | None = None,
        date: np.datetime64 | str | None = None,
        count: int = 1,
    ) -> None:
        """Note one finding; a date that is no day (NaT) counts as none."""
        known = self.kinds[kind]
        self._found.append(
            Finding(
                kind,
                known.severity,
                _printable(message),
                None if file is None else _printable(file),
                None if instrument is None else _printable(instrument),
                day(date) if isinstance(date, np.datetime64) else date,
                int(count),
                known.fix,
            )
        )

    def extend(self, findings: Iterable[Finding]) -> None:
        """Take over findings that were made elsewhere, of kinds that are known here."""
        for finding in findings:
            place = finding.file, finding.instrument, finding.date, finding.count
            self.add(finding.kind, finding.message, *place)

    def sorted(self) -> tuple[Finding, ...]:
        """By severity, then by kind in the order of the kinds, then in the order found."""
        order = {
            name: (SEVERITIES.index(kind.severity), n) for n, (name, kind) in enumerate(self.kinds.items())
        }
        return tuple(sorted(self._found, key=lambda finding: order[finding.kind]))


def day(date: np.datetime64) -> str | None:
    """`YYYY-MM-DD`, None for NaT."""
    return None if np.isnat(date) else str(date.astype("M8[D]"))


def _printable(text: str) -> str:
    """Text that any terminal and file takes: names on disk may hold bytes that are no text, and control signs."""
    clean = text.encode("utf-8", errors="replace").decode("utf-8")
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in clean)


def listed(names: Sequence[str], most: int = 5) -> str:
    """`a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
