"""Passwords out of what is shown, logged or raised."""

from __future__ import annotations

import logging
import os
import re

HIDDEN = "***"

# The user's part of a URI, and up to the last @ of the word: a password may hold any character but a space.
_USER = re.compile(r"://(?:[^\s/@:]*:\S*|[^\s/@:]+)@")
_QUERY = re.compile(r"([?&;](?:password|passwd|pwd|token|secret|api_?key)=)[^\s&;]*", re.IGNORECASE)
# Variables of the environment that hold secrets, by a word of their name: MLFLOW_TRACKING_TOKEN, AWS_SECRET_ACCESS_KEY.
_SECRET = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|PWD|TOKEN|SECRET|CREDENTIALS?|(?:API|ACCESS|SECRET|PRIVATE)_?KEY)(?:$|_)",
    re.IGNORECASE,
)
_NO_SECRETS = ("PWD", "OLDPWD", "AWS_ACCESS_KEY_ID")  # where the shell is, and the name of a key
SHORTEST = 6  # characters: what is shorter stands in any text


def masked(text: str) -> str:
    """A text without the user names and passwords of the URIs in it, and without the secrets of the environment.

    Parameters
    ----------
    text
        A URI such as `postgresql://ann:pass@host/mlflow`, or any text.

    Returns
    -------
    The text with `***` in place of what stands between `://` and `@`, of passwords, tokens and keys among the arguments
    of a query, and of the values of environment variables that are called passwords, tokens, secrets or keys. In doubt
    more is hidden than need be: a URI whose path has an `@` loses its path up to there.

    Examples
    --------
    >>> masked("cannot reach postgresql://ann:pass@host/mlflow")
    'cannot reach postgresql://***@host/mlflow'
    >>> masked("sqlite:///mlflow.db")
    'sqlite:///mlflow.db'
    """
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"://{HIDDEN}@", text))


def _secrets() -> list[str]:
    """Values of the environment that nobody should read, the longest first: one may hold another."""
    found = {
        value
        for name, value in os.environ.items()
        if _SECRET.search(name) and name not in _NO_SECRETS and len(value) >= SHORTEST
    }
    return sorted(found, key=len, reverse=True)


class MaskingFilter(logging.Filter):
    """Takes secrets out of every message of a handler of logging, and out of the exception that it shows."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, masked."""
        said = record.getMessage()
        hidden = masked(said)
        if hidden != said:
            record.msg, record.args = hidden, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = masked(logging.Formatter().formatException(record.exc_info))
        return True


def mask_logs(*names: str) -> None:
    """Put a `MaskingFilter` on the handlers of these loggers, once each."""
    for name in names:
        for handler in logging.getLogger(name).handlers:
            if not any(isinstance(each, MaskingFilter) for each in handler.filters):
                handler.addFilter(MaskingFilter())
