"""Qlib's own download of a market, made whole or not at all."""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from pathlib import Path

import requests
from qlib.tests.data import GetData

from qlib_ext.checks import UserError, brief, one_of
from qlib_ext.market.replace import copy_store, recover, replaced
from qlib_ext.market.store import SAMPLE, QlibStore, StoreError

NAMES = ("qlib_data", "qlib_data_simple")
REGIONS = ("cn", "us")
SIDE = "side"
INSTEAD = "bring your own bars with `qlib-ext data import`, or make a sample market with `qlib-ext data sample --out DIR`"


def download(
    root: str | Path,
    *,
    region: str = "cn",
    name: str = "qlib_data",
    version: str | None = None,
    replace: bool = False,
) -> QlibStore:
    """Download daily bars with Qlib's getter (`qlib.tests.data.GetData`) and put them at `root`.

    Qlib's getter finds the address, asks for the file that is made for its own version and else for the latest,
    fetches the zip and unpacks it. What it does not do is done here: it works in a new directory beside `root` that
    takes its place only when all of it is there, so a download that fails half-way leaves nothing; its question
    before it deletes is not asked, as it has nothing to delete; and what goes wrong becomes one sentence.

    Parameters
    ----------
    root
        Directory to make; `~` is expanded.
    region
        `cn` or `us`.
    name
        `qlib_data`, or `qlib_data_simple`, which is small.
    version
        Of the data, such as `v1`; None: that which Qlib takes.
    replace
        Whether a store at `root` may be replaced. Its side data (`side/`) are kept, unless they are those of a
        sample market; the rest of it goes.

    Returns
    -------
    QlibStore

    Raises
    ------
    UserError
        If an argument is wrong; if `root` holds a store and `replace` is not set, or something that is no store; if
        there is no network, no such file, a cut or slow connection, a broken zip or no room on the disk. `root` is
        then as it was.
    """
    one_of("region", region, REGIONS)
    one_of("name", name, NAMES)
    if version is not None and not re.fullmatch(r"v\d+", version):
        raise UserError(f"`version` must be one such as v1 or v2, found {brief(version)}")
    root = Path(root).expanduser().resolve()
    recover(root)
    _check_target(root, replace)
    with replaced(root) as new:
        _get(new, region, name, version)
        _lift(new)
        try:
            QlibStore(new)
        except StoreError as error:
            reason = str(error).replace(str(new), "the download").removesuffix(". ")
            raise UserError(
                f"what Qlib's getter brought from {_source()} is no market store: {reason}"
            ) from error
        side = root / SIDE
        if side.is_dir() and not (root / SAMPLE).is_file() and not (new / SIDE).exists():
            copy_store(side, new / SIDE)
    return QlibStore(root)


def _check_target(root: Path, replace: bool) -> None:
    if not root.is_dir() or not any(root.iterdir()):
        return  # a file is refused by `replaced`
    try:
        QlibStore(root)
    except StoreError as error:
        parts = [part for part in ("calendars", "features", "instruments") if (root / part).is_dir()]
        if len(parts) < 2:  # a damaged store may well be replaced, anybody's directory not
            raise UserError(
                f"`{root}` holds something else than a market store; name a new directory. Nothing was downloaded"
            ) from error
    if not replace:
        raise UserError(
            f"`{root}` holds a market store already; add --replace to put the download in its place, or name "
            "another directory. Nothing was downloaded"
        )


def _get(new: Path, region: str, name: str, version: str | None) -> None:
    """Run Qlib's getter in `new`, and say in one sentence what went wrong."""
    getter = GetData(delete_zip_file=True)
    try:
        getter.qlib_data(name=name, target_dir=new, version=version, region=region, delete_old=False)
    except requests.exceptions.HTTPError as error:
        raise UserError(_refused(error)) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise UserError(
            f"the connection to {_source()} broke off in the middle of the file; try again. Nothing was kept"
        ) from error
    except requests.exceptions.RequestException as error:
        if isinstance(error, requests.exceptions.Timeout) or isinstance(_cause(error), TimeoutError):
            raise UserError(
                f"{_source()} did not answer in time, or fell silent; try again later, or {INSTEAD}"
            ) from error
        raise UserError(
            f"{_source()} cannot be reached ({getattr(_cause(error), 'strerror', None) or _cause(error)}); see to the network (a proxy is taken from the "
            f"variable HTTPS_PROXY), or {INSTEAD}"
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"what {_source()} sent is no whole zip file ({error}); try again later. Nothing was kept"
        ) from error


def _refused(error: requests.exceptions.HTTPError) -> str:
    response = error.response
    if response is None:
        return f"{_source()} answered without a file; try again later, or {INSTEAD}"
    address = response.url.partition("?")[0]  # behind the question mark stands a key of the moment
    what = f"HTTP {response.status_code} for `{address}`"
    if response.status_code in {403, 404, 410, 451}:
        return f"the data are not there any more, or not for everybody: {what}; try another `version`, or {INSTEAD}"
    return f"the server refused: {what}; try again later, or {INSTEAD}"


def _source() -> str:
    return f"`{GetData.REMOTE_URL}`"


def _cause(error: BaseException) -> BaseException:
    """The innermost cause, which is the one that means something."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _lift(new: Path) -> None:
    """A zip with one folder around everything: put its content in the place of the folder."""
    if (new / "calendars").is_dir():
        return
    inner = [path for path in new.iterdir() if (path / "calendars").is_dir()]
    if len(inner) == 1:
        for path in list(new.iterdir()):
            if path != inner[0]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        aside = inner[0].rename(new / ".lifted")
        for path in list(aside.iterdir()):
            path.rename(new / path.name)
        aside.rmdir()
