"""Passwords out of what is shown, logged or raised.

No library does this: detect-secrets finds secrets in files, loggingredactor applies patterns that it is given, and what else
masks logs is in its first versions. None takes the values of the environment out, which is most of it.
"""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import logging
import os
import re
from urllib.parse import quote, quote_plus

from qlib_ext.terminal import visible

HIDDEN = "***"
SHORTEST = 6  # characters of a value of the environment: what is shorter stands in any text
SHORTEST_LINE = 16  # of a value of many lines: a shorter line may be a word

# Names of secrets, in the environment and wherever a text gives one a value: MLFLOW_TRACKING_TOKEN, PGPASSWORD, sig.
_SECRET = re.compile(
    r"""SECRET | PASSWORD | PASSWD | PASSPHRASE | BEARER | JWT | CONNECTION_?STRING | TOKEN$ | (?:^|_)TOKEN_
    | AUTH(?!OR) | AUTHORI[SZ]ATION | (?<!BY)(?<!COM)PASS$ | _PAT$ | (?-i:^PAT$)
    | (?:^|_)(?:PWD|SIG|SIGNATURE|CREDS?|CREDENTIALS?)(?:_|$)
    | (?:API|ACCESS|SECRET|PRIVATE|ACCOUNT|STORAGE|ENCRYPTION|SIGNING|SHARED)_?KEY(?:_|$)""",
    re.IGNORECASE | re.VERBOSE,
)
LEAST_NUMBER = 100_000  # that can be a secret
# Where the shell is and where things lie, the name of a key, and how somebody shows who he is, not by what.
_NO_SECRET = re.compile(
    r"(?:OLD)?PWD|AWS_ACCESS_KEY_ID|.*_(?:FILE|PATH|DIR|SOCK|URL|URI|HOST|TYPE|METHOD|MODE|PLUGIN)",
    re.IGNORECASE,
)
# The user's part of a URI, and up to the last @ of the word: a password may hold any character but a space. Its length is
# bounded, since a text of many `://` would take hours otherwise.
_USER = re.compile(r"://(?:[^\s/@:]{0,200}:\S{0,2000}|[^\s/@:]{1,2000})@")
_HEADER = re.compile(
    r"\b((?:Proxy-)?Authorization|(?:Set-)?Cookie|X-[\w-]*(?:Token|Key)|Private-Token|Api-Key)(\s*:\s*)[^\s\"'][^\r\n\"']*",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(Bearer|bearer|Basic|basic)(\s+)([A-Za-z0-9._~+/-]{6,}=*)")
_QUOTED = r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
# Of a mapping, in JSON or as Python shows it; its quotes are escaped where it stands in another text.
_ITEM = re.compile(
    rf"""(?P<before>(?P<q>\\*["'])(?P<name>[\w.-]+)(?P=q)\s*:\s*)(?P<value>{_QUOTED}|\\+".*?\\+")"""
)
# Of a connection string a value goes up to the semicolon. Elsewhere, as in a query, a command or a call, it ends with the
# word, and a mark that closes something is its own only where it goes on.
_OF_CONNECTION = re.compile(
    r"(?P<before>(?:^|(?<=;))[ ]{0,9}(?P<name>\w[\w ]{0,40}?)[ ]{0,9}=[ ]{0,9})(?P<value>[^;\n\"' ][^;\n\"']*)(?=;)",
    re.MULTILINE,
)
_PAIR = re.compile(
    rf"""(?P<before>(?P<query>[?&;])?\b(?P<name>[A-Za-z][\w.-]*)[ ]?=[ ]?)"""
    rf"""(?P<value>{_QUOTED}|\{{[^}}\n]*\}}|(?:[^\s&;,"'()<>\[\]{{}}]|[,"'()<>\[\]{{}}](?=\w))+)"""
)
_HARMLESS = {
    "none",
    "null",
    "true",
    "false",
    "enabled",
    "disabled",
    "default",
    "required",
    "optional",
    "kerberos",
    "oauth2",
}


_hidden: set[str] = set()  # secrets that came from files


def masked(text: str) -> str:
    """A text without the user names and passwords of the URIs in it, and without the secrets of the environment.

    Parameters
    ----------
    text
        A URI such as `postgresql://ann:pass@host/mlflow`, or any text.

    Returns
    -------
    The text with `***` in place of what stands between `://` and `@`; of what is given to a name of a secret, as
    `password=...`, `PWD=...` and `sig=...`, or `"token": "..."`; of what follows `Authorization:` and `Bearer`; and of the
    values of environment variables with such names, as they are and as JSON, Python, a URI or HTML would write them. In
    doubt more is hidden than need be: a URI whose path has an `@` loses its path up to there.

    Examples
    --------
    >>> masked("cannot reach postgresql://ann:pass@host/mlflow")
    'cannot reach postgresql://***@host/mlflow'
    >>> masked("sqlite:///mlflow.db")
    'sqlite:///mlflow.db'
    >>> masked("Server=db;UID=ann;PWD=a b;")
    'Server=db;UID=ann;PWD=***;'
    """
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    text = _USER.sub(f"://{HIDDEN}@", text)
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    text = _SCHEME.sub(_without_token, text)
    for pattern in (_ITEM, _OF_CONNECTION, _PAIR):
        text = pattern.sub(_without_value, text)
    return text


def masked_value(name: str, value: str | int) -> str | int:
    """What stands under a name in a configuration: hidden where that is the name of a secret, else `masked`.

    YAML reads a password of digits as a number: one of many digits is hidden too, and a smaller one is a setting.
    """
    if not isinstance(value, str):
        return HIDDEN if abs(value) >= LEAST_NUMBER and is_secret(name) else value
    hidden = is_secret(name) and value.lower() not in _HARMLESS and value
    return HIDDEN if hidden else masked(value)


@functools.lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    """Whether a variable, an argument or a key of this name holds a secret."""
    return bool(_SECRET.search(re.sub(r"[-. ]", "_", name))) and not _NO_SECRET.fullmatch(name)


def _without_value(found: re.Match[str]) -> str:
    """What is given to a name, hidden if the name is a secret's; words and small numbers that are nobody's secret stay."""
    name, value = found["name"], found["value"]
    plain = value.strip("\\\"'{}")
    certain = found.re is _OF_CONNECTION or bool(found.groupdict().get("query"))
    folder = plain.startswith("/") and not certain  # `PWD` of a shell
    if not (is_secret(name) or (name.upper() == "PWD" and not folder)):
        return found[0]
    number = re.fullmatch(r"[\d.]{1,5}", plain) and not re.search("PASS|PWD|SECRET", name.upper())
    if not plain or plain.lower() in _HARMLESS or (number and not certain):
        return found[0]
    left, _, right = value.partition(plain)
    return f"{found['before']}{left}{HIDDEN}{right}"


def _without_token(found: re.Match[str]) -> str:
    """What follows the name of a way to authenticate, where it is no word of a sentence."""
    scheme, space, token = found.groups()
    if scheme == "bearer" and token.isalpha() and token.islower():
        return found[0]
    if scheme.lower() == "basic" and b":" not in _decoded(token):
        return found[0]
    return f"{scheme}{space}{HIDDEN}"


def _decoded(token: str) -> bytes:
    try:
        return base64.b64decode(token, validate=True)
    except binascii.Error:
        return b""


def hide(secret: str) -> None:
    """Take a secret that came from a file, as a token does, out of whatever this process shows from here on."""
    _hidden.add(secret)


def _secrets() -> list[str]:
    """Values of the environment that nobody should read, in all their spellings, the longest first: one may hold another."""
    values = [*_hidden, *(value for name, value in os.environ.items() if is_secret(name))]
    return sorted({form for value in values for form in _spellings(value)}, key=len, reverse=True)


@functools.lru_cache(maxsize=256)
def _spellings(value: str) -> frozenset[str]:
    """A value without the blanks around it, its long lines, and both as JSON, Python, a URI or HTML write them."""
    whole = value.strip()
    plain = {whole, *(line for line in map(str.strip, whole.splitlines()) if len(line) >= SHORTEST_LINE)}
    found = set(plain)
    for _ in range(2):  # the second time as a text of JSON in JSON
        found |= {
            json.dumps(text, ensure_ascii=ascii_only)[1:-1] for text in found for ascii_only in (True, False)
        }
    found |= {repr(text)[1:-1] for text in plain} | {repr(_bytes(text))[2:-1] for text in plain}
    found |= {html.escape(text) for text in plain}
    quoted = {write(_bytes(text)) for text in plain for write in (quote, quote_plus, _quote_all)}
    found |= quoted | {re.sub("%[0-9A-F]{2}", lambda mark: mark[0].lower(), text) for text in quoted}
    return frozenset(text for text in found if len(text) >= SHORTEST and text.lower() not in _HARMLESS)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")  # as Python reads what is no UTF-8 from the environment


def _quote_all(text: bytes) -> str:
    return quote(text, safe="")


class MaskingFilter(logging.Filter):
    """Takes secrets out of each message of a handler and of the exception that it shows, and makes the rest visible.

    A message of this package is one line, whatever the names in it hold.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record through, masked."""
        said = record.getMessage()
        hidden = visible(masked(said), "" if record.name.startswith("qlib_ext") else "\n")
        if hidden != said:
            record.msg, record.args = hidden, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = visible(masked(logging.Formatter().formatException(record.exc_info)), "\n")
        return True


def mask_logs(*names: str) -> None:
    """Put a `MaskingFilter` on the handlers of these loggers, and on the one of loggers that have none, once each."""
    handlers = [handler for name in names for handler in logging.getLogger(name).handlers]
    for handler in filter(None, [*handlers, logging.lastResort]):
        if not any(isinstance(each, MaskingFilter) for each in handler.filters):
            handler.addFilter(MaskingFilter())
