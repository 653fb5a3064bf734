"""Text files of users: what divides their columns, and what the libraries say against them in one message."""

from __future__ import annotations

import contextlib
import csv
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from qlib_ext.checks import UserError, brief
from qlib_ext.files import open_file, open_table

MOST_ROWS = 50_000_000  # 5,000 stocks over 40 years


def separator(path: Path, encoding: str = "utf-8") -> str:
    """What divides the first line most often, a comma where nothing does."""
    with open_table(path, encoding=encoding) as file:
        line = file.readline().decode("latin-1")
    return max(",;\t|", key=line.count)


def check_parquet(path: Path) -> None:
    """Refuse what is no regular file, or has more rows than a table that is read as a whole."""
    with open_file(path) as file:
        rows = pq.read_metadata(file).num_rows
    if rows > MOST_ROWS:
        raise UserError(f"`{path}` must have at most {MOST_ROWS:,} rows, found {rows:,}; divide it")


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
        raise UserError(f"`encoding` must be one such as utf-8 or gbk, found {brief(encoding)}") from error
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise UserError(f"`{path}` cannot be read: {' '.join(str(error).split())}") from error
