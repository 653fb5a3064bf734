"""Passwords out of what is shown, logged or raised."""

from __future__ import annotations

import re

HIDDEN = "***"

# The user's part of a URI, and up to the last @ of the word: a password may hold any character but a space.
_USER = re.compile(r"://(?:[^\s/@:]*:\S*|[^\s/@:]+)@")
_QUERY = re.compile(r"([?&;](?:password|passwd|pwd|token|secret|api_?key)=)[^\s&;]*", re.IGNORECASE)


def masked(text: str) -> str:
    """A text without the user names and passwords of the URIs in it.

    Parameters
    ----------
    text
        A URI such as `postgresql://ann:pass@host/mlflow`, or any text with URIs in it.

    Returns
    -------
    The text with `***` in place of what stands between `://` and `@`, and of passwords, tokens and keys among
    the arguments of a query. In doubt more is hidden than need be: a URI whose path has an `@` loses its path
    up to there.

    Examples
    --------
    >>> masked("cannot reach postgresql://ann:pass@host/mlflow")
    'cannot reach postgresql://***@host/mlflow'
    >>> masked("sqlite:///mlflow.db")
    'sqlite:///mlflow.db'
    """
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"://{HIDDEN}@", text))
