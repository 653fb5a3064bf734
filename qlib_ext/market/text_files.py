"""Text files of users: what divides their columns, and what the libraries say against them in one message."""

from __future__ import annotations

import contextlib
import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from qlib_ext.checks import UserError


def separator(path: Path) -> str:
    """What divides the first line most often, a comma where nothing does."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        line = file.readline().decode("latin-1")
    return max(",;\t|", key=line.count)


@contextlib.contextmanager
def reading(path: Path, encoding: str) -> Iterator[None]:
    """Name the file in whatever the libraries say of it."""
    try:
        yield
    except UserError:
        raise
    except UnicodeError as error:
        raise UserError(
            f"`{path}` is not in the encoding {encoding}: name its own, such as `--encoding gbk` ({error})"
        ) from error
    except LookupError as error:
        raise UserError(f"`encoding` must be one such as utf-8 or gbk, found {encoding!r}") from error
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise UserError(f"`{path}` cannot be read: {' '.join(str(error).split())}") from error
