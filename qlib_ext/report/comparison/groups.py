"""Runs put together that differ by their seed only, under names that say what tells the groups apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from qlib_ext.report.comparison.settings import (
    ABSENT,
    GIVEN,
    PORTFOLIO,
    STRATEGY,
    TASKS,
    canonical,
    label,
    shown,
)

# What a reader looks for first; it leads the name, in this order.
FIRST = (
    "model.kwargs.balancer.class",
    "model.kwargs.backbone.class",
    "dataset.kwargs.handler.kwargs.instruments",
    TASKS,
    *GIVEN,
    PORTFOLIO,
)
MODEL = "model.class"


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys whose values are not the same in all runs, those that a reader looks for first in front.

    A run without a key differs from one with it.
    """
    keys = dict.fromkeys(key for each in settings for key in each)
    found = [key for key in keys if len({canonical(each.get(key, ABSENT)) for each in settings}) > 1]
    return sorted(found, key=_rank)


def grouped(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[list[int]]:
    """Numbers of the runs by what they are set to in `keys`, in the order of their first runs."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for k, each in enumerate(settings):
        groups.setdefault(tuple(canonical(each.get(key, ABSENT)) for key in keys), []).append(k)
    return [*groups.values()]


def names(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[str]:
    """A name for each of several groups, made of what differs among them.

    A key whose value follows from the keys before it says nothing new and stays out of the names: what only belongs to
    one balancer is not named where the balancer is. A portfolio goes by what finds its weights, other strategies by their
    class. A class other than those of `FIRST` and a list of tasks are named
    only where they are not what most groups have.

    Parameters
    ----------
    settings
        Of one run of each group.
    keys
        By which the groups differ, the most telling first.

    Returns
    -------
    Names without repetition.
    """
    if len(settings) == 1:
        return ["all runs"]
    kept = telling(settings, keys)
    labels = {key: label(key, kept) for key in kept}
    usual = {key: Counter(each.get(key, ABSENT) for each in settings).most_common(1)[0][0] for key in kept}
    found = []
    for each in settings:
        parts = [
            _part(key, labels[key], each)
            for key in kept
            if not (_may_stay_out(key) and each.get(key, ABSENT) == usual[key])
        ]
        found.append(", ".join(filter(None, parts)) or _model(each))
    if len({*found}) < len(found):  # say all of it, absences too, and classes with their modules
        found = [
            ", ".join(f"{labels[key]} {each.get(key, ABSENT)}" for key in kept) or _model(each)
            for each in settings
        ]
    return _numbered(found)


def telling(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[str]:
    """Those of `keys`, in their order, that each split what the keys before them leave together."""
    chosen: list[str] = []
    parts = 1
    for key in keys:
        more = len(grouped(settings, [*chosen, key]))
        if more > parts:
            chosen, parts = [*chosen, key], more
    return chosen


def _rank(key: str) -> tuple[int, bool, int, str]:
    place = FIRST.index(key) if key in FIRST else len(FIRST) + (key == MODEL)
    return place, not key.endswith(".class"), key.count("."), key


def _may_stay_out(key: str) -> bool:
    return key == TASKS or (key.endswith(".class") and key not in FIRST)


def _part(key: str, name: str, settings: Mapping[str, str]) -> str:
    value = settings.get(key)
    if value is None:
        return _model(settings) if key == FIRST[0] else _strategy(settings) if key == PORTFOLIO else ""
    if key == TASKS:
        return value if "+" in value else f"{value} only"
    if key.endswith(".class") or key in FIRST:
        return shown(key, value)
    return f"{name} {value}"


def _model(settings: Mapping[str, str]) -> str:
    return shown(MODEL, settings.get(MODEL, "model"))


def _strategy(settings: Mapping[str, str]) -> str:
    return shown(STRATEGY, settings.get(STRATEGY, ""))


def _numbered(found: Sequence[str]) -> list[str]:
    """Number the second and further of a name."""
    seen: Counter[str] = Counter()
    unique = []
    for name in found:
        seen[name] += 1
        candidate = name if seen[name] == 1 else f"{name} ({seen[name]})"
        while candidate in unique:
            seen[name] += 1
            candidate = f"{name} ({seen[name]})"
        unique.append(candidate)
    return unique
