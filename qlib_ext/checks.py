"""Argument checks, in one message format: what was expected, what was found, the way out.

Every check returns its value, so that a constructor can check and store in one line.
"""

from __future__ import annotations

import difflib
import errno
import itertools
import math
import reprlib
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


MOST_LETTERS = 4_000  # of a message
MOST_LETTERS_OF_NAME = 100  # of a task or a label, beside which MLflow's 250 for a metric have room for more
MOST = 100_000  # of what is counted, unless said otherwise: days, stocks, epochs, sizes of a layer
LARGEST = 1e15  # of any other number: an account in any currency, a weight
LARGEST_SEED = 2**32 - 1  # what every generator takes


class UserError(ValueError):
    """Something that the user gave is wrong; the message alone says what, and what to do about it.

    A message is cut in its middle where it would be longer than a person reads.
    """

    def __init__(self, message: str = ""):
        super().__init__(_cut(message, MOST_LETTERS))


class _Brief(reprlib.Repr):
    """`repr` of what a message shows: a few entries, a few levels, the beginning and the end of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 3, 8, 8, 8
        self.maxstring = self.maxother = self.maxlong = 200

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """As `reprlib`, in the order of the mapping: theirs is sorted."""
        if level <= 0 and x:
            return "{...}"
        some = [
            f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}"
            for key in itertools.islice(x, self.maxdict)
        ]
        return "{" + ", ".join([*some, "..."] if len(x) > self.maxdict else some) + "}"


brief = _Brief().repr


# Package -> what a person knows it by, and where to look.
FOREIGN = {
    "mlflow": ("MLflow", "check MLFLOW_TRACKING_URI, `--tracking-uri` and what that store holds"),
    "sqlalchemy": (
        "MLflow's database",
        "check MLFLOW_TRACKING_URI, and whether another process locks the file",
    ),
    "cvxpy": (
        "cvxpy, which the strategy computes weights by",
        "name a solver that is installed, or loosen a constraint",
    ),
    "qlib": ("Qlib", "`qlib-ext check WORKFLOW` looks at what it was given"),
}


# What the system says of a place or a disk, and not of a mistake in a program.
REFUSED = {
    getattr(errno, name)
    for name in [
        "EACCES",
        "EPERM",
        "EROFS",
        "ENOTDIR",
        "EISDIR",
        "ENAMETOOLONG",
        "ELOOP",
        "ENOSPC",
        "EDQUOT",
        "EFBIG",
        "EIO",
    ]
    if hasattr(errno, name)
}


def foreign_error(error: BaseException) -> str | None:
    """What to say of an error of MLflow, cvxpy, Qlib or the system, in one sentence with the way out; None of any other."""
    if isinstance(error, OSError) and error.errno in REFUSED:
        place = "" if error.filename is None else f" of {error.filename}"
        return f"the system says{place}: {error.strerror}; name another place, change its rights or make room"
    known = FOREIGN.get(type(error).__module__.partition(".")[0])
    if known is None:
        return None
    name, hint = known
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    return f"{name} says: {said.rstrip('.')}; {hint}"


def at_least(name: str, value: T, minimum: float, maximum: float = LARGEST) -> T:
    """Return `value` if it is a number of at least `minimum` and at most `maximum`."""
    if not _is_number(value) or not value >= minimum:  # type: ignore[operator]
        raise UserError(f"`{name}` must be at least {minimum:g}, found {brief(value)}")
    return at_most(name, value, maximum)


def above(name: str, value: T, bound: float, maximum: float = LARGEST) -> T:
    """Return `value` if it is a number above `bound` and at most `maximum`."""
    _check_finite(name, value)
    if not _is_number(value) or not value > bound:  # type: ignore[operator]
        raise UserError(f"`{name}` must be above {bound:g}, found {brief(value)}")
    return at_most(name, value, maximum)


def at_most(name: str, value: T, maximum: float) -> T:
    """Return `value` if it is a number of at most `maximum`."""
    if not _is_number(value) or not value <= maximum:  # type: ignore[operator]
        shown = f"{maximum:,}" if isinstance(maximum, int) else f"{maximum:,g}"
        raise UserError(f"`{name}` must be at most {shown}, found {brief(value)}")
    return value


def between(
    name: str, value: T, low: float, high: float, *, open_low: bool = False, open_high: bool = False
) -> T:
    """Return `value` if it is a number in the interval from `low` to `high`, either end open on request."""
    inside = _is_number(value) and (
        (value > low if open_low else value >= low)  # type: ignore[operator]
        and (value < high if open_high else value <= high)  # type: ignore[operator]
    )
    if not inside:
        left, right = "(" if open_low else "[", ")" if open_high else "]"
        raise UserError(f"`{name}` must lie in {left}{low:g}, {high:g}{right}, found {brief(value)}")
    return value


def integer(name: str, value: object, minimum: int | None = None, maximum: int = MOST) -> int:
    """Return `value` if it is an integer (not a bool), of at least `minimum` where one is given, and at most `maximum`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"`{name}` must be an integer, found {brief(value)}")
    if minimum is not None:
        at_least(name, value, minimum, maximum)
    return at_most(name, value, maximum)


def short(name: str, value: str, most: int = MOST_LETTERS_OF_NAME) -> str:
    """Return `value` if it is a text of at most `most` letters."""
    if len(value) > most:
        raise UserError(f"`{name}` must have at most {most} letters, found {len(value):,}: {brief(value)}")
    return value


def one_of(name: str, value: T, choices: Collection[T]) -> T:
    """Return `value` if it is one of `choices`; the message lists them and names the nearest."""
    if value not in choices:
        known = ", ".join(sorted(map(str, choices)))
        raise UserError(
            f"`{name}` must be one of {known}, found {brief(value)}"
            f"{nearest(value, map(str, choices)) if isinstance(value, str) else ''}"
        )
    return value


def words(name: str, value: object) -> tuple[str, ...]:
    """Return `value` as a tuple if it is a list of texts, none twice."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) for word in value):
        raise UserError(f"`{name}` must be a list of names, found {brief(value)}")
    for word in value:
        if value.count(word) > 1:
            raise UserError(f"`{name}` must name each once, found {brief(word)} more than once")
    return tuple(value)


def instance(name: str, value: object, kind: type[T]) -> T:
    """Return `value` if it is an instance of `kind`."""
    if not isinstance(value, kind):
        raise UserError(f"`{name}` must be a {kind.__name__}, found {type(value).__name__}: {brief(value)}")
    return value


def counted(number: int, what: str) -> str:
    """`1 day`, `2,674 days`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`: what a person plans by."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint ' (did you mean X?)' with the closest known words, or nothing when none is close."""
    if len(word) > MOST_LETTERS:  # of which the search takes minutes
        return ""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _check_finite(name: str, value: object) -> None:
    if isinstance(value, float) and math.isinf(value):
        raise UserError(f"`{name}` must be a finite number, found {brief(value)}")


def _is_number(value: object) -> bool:
    if isinstance(value, (bool, str)):  # YAML reads `1e-3` as text: its floats need a point, 1.0e-3
        return False
    try:
        return not math.isnan(float(value))  # type: ignore[arg-type]
    except OverflowError:  # an integer beyond any float is one all the same
        return isinstance(value, int)
    except (TypeError, ValueError):
        return False


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 2 :]}"
