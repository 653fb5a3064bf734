"""A market in Qlib's format as one packed file: the community's daily archive of A-shares, by address or from disk."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import pandas as pd
import requests

from qlib_ext.checks import UserError, brief, counted
from qlib_ext.files import MIB, open_archive, read_json, write_whole
from qlib_ext.market.codes import is_index
from qlib_ext.market.fetch.downloads import Downloads
from qlib_ext.market.fetch.polite import KEPT, PassingError, Polite, SourceError, passes, shown
from qlib_ext.market.fetch.source import Fetched, Job, Source
from qlib_ext.market.fetch.vendor import TAIL_DAYS
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.ingest import ORDER
from qlib_ext.market.importing.units import settle_units
from qlib_ext.market.store import LIST_SIZE, MOST_CODES, MOST_DAYS, QlibStore, StoreError, bin_size
from qlib_ext.masking import masked
from qlib_ext.paths import inside

ADDRESS = "https://github.com/chenditc/investment_data/releases/latest/download/qlib_bin.tar.gz"
NAME = "qlib_bin.tar.gz"
BLOCK = MIB // 16  # what came of a connection that breaks is kept to the last whole one
TIMEOUT = (15, 60)  # seconds to connect, and of silence
MOST_FILES = 20 * MOST_CODES
RATIO, FREE = 200, 1024 * MIB  # unpacked bytes may be so many times the packed ones, or so few
PARTS = re.compile(r"calendars/[\w.-]+\.txt|instruments/[\w.-]+\.txt|features/[^/]+/[\w.$-]+\.day\.bin")


class Archive(Source):
    """A packed market: bars with factors, and the universes in it.

    Without arguments it is the release of chenditc/investment_data, made anew after each trading day. Its volumes are in
    hands and its amounts in thousands, which its prices show: they become shares and yuan.

    Parameters
    ----------
    file
        A `.tar.gz` or `.tar` on disk, in the place of an address.
    address
        Where one is downloaded from, by http or https.
    tries
        Of a download; each goes on where the last one broke off.

    Raises
    ------
    UserError
        If both are given, or an argument cannot be.
    """

    def __init__(self, file: str | None = None, address: str | None = None, tries: int = 5) -> None:
        if file is not None and address is not None:
            raise UserError("`file` and `address` must not both be given, found both: leave one out")
        if address is not None and not re.match(r"https?://[^/\s]+/", address):
            raise UserError(
                f"`address` must begin with https:// or http:// and name a file, found {brief(address)}"
            )
        self.file = None if file is None else Path(file).expanduser()
        self.address = address or ADDRESS
        self.polite = Polite(60, tries)

    def fetch(self, job: Job) -> Fetched:
        """Download what is new, unpack it with care, and read it as a store."""
        kept = Downloads(job.folder, self.identity)
        path = self.file if self.file is not None else self._download(kept, job)
        if not path.is_file():
            raise UserError(f"`file` must be a packed market such as {NAME}, found nothing at `{path}`")
        with tempfile.TemporaryDirectory(dir=job.folder, prefix=".unpacked.") as folder:
            unpack(path, Path(folder), job)
            try:
                store = QlibStore(folder)
                if job.nothing_beyond(store.calendar[-1]):
                    return Fetched(None)
                return Fetched(_bars(store, job), _universes(store, job))
            except StoreError as error:
                said = str(error).replace(folder, path.name)
                raise SourceError(f"`{path}` must hold a market in Qlib's format: {said}") from error

    def _download(self, kept: Downloads, job: Job) -> Path:
        """The newest file of the address; what is on disk already where the server has no other."""
        path, about = kept.root / NAME, kept.root / f"{NAME}.json"
        place = hashlib.sha256(self.address.encode()).hexdigest()  # an address may hold a password
        known: dict[str, str] = {}
        if path.is_file() and about.is_file():
            try:
                found = read_json(about)
                known = found if isinstance(found, dict) and found.get("address") == place else {}
            except ValueError:
                known = {}  # asked for anew
        part = path.with_suffix(".part")

        def ask() -> str | None:
            return _get(self.address, place, part, known.get("tag", ""), job)

        def judge(error: Exception) -> Exception:
            return error if isinstance(error, UserError) else passes(error) or _refused(self.address, error)

        tag = self.polite.call(f"the download of {masked(self.address)}", ask, judge)
        if tag is not None:
            part.replace(path)
            kept.write_text(about.name, json.dumps({"tag": tag, "address": place}) + "\n")
        return path


def unpack(path: Path, folder: Path, job: Job | None = None) -> None:
    """Write the files of a market out of a packed one, and nothing else.

    Raises
    ------
    SourceError
        If it is no whole archive; if a member leads out of it, is a link or a device, comes twice, or is larger than such
        a file can be; if all of it is larger than it should be.
    """
    most = max(FREE, RATIO * path.stat().st_size)
    seen: set[str] = set()
    others, total = [], 0
    try:
        with open_archive(path) as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if member.isdir() and ".." not in parts and not member.name.startswith("/"):
                    continue
                name = _name(path, member)
                limit = bin_size(MOST_DAYS) if name.endswith(".bin") else LIST_SIZE
                total += member.size
                if name in seen or len(seen) > MOST_FILES or total > most:
                    why = "one name twice" if name in seen else "more than a market has"
                    raise SourceError(
                        f"`{path}` must be a packed market, found {why} at {brief(member.name)}: do not use it"
                    )
                seen.add(name)
                if not PARTS.fullmatch(name):
                    others.append(name)
                    continue
                if member.size > limit:
                    raise SourceError(
                        f"`{path}` must hold small files, found {member.size:,} bytes of {brief(name)}"
                    )
                stream = archive.extractfile(member)
                assert stream is not None
                _write(inside(folder, name, what="a member of the archive"), stream)
                if job is not None and job.progress is not None and len(seen) % 500 == 0:
                    job.progress(len(seen), len(seen), "unpacking")
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise SourceError(
            f"`{path}` must be a whole packed market, found none ({shown(error)}): delete it, and fetch it again"
        ) from error
    if job is not None:
        job.notes.gather("{file} of the archive beside the market: left out", others)


def _name(path: Path, member: tarfile.TarInfo) -> str:
    """The name of a member below the folder around all; a SourceError where it is no plain file inside."""
    parts = PurePosixPath(member.name).parts
    if member.name.startswith("/") or ".." in parts or "\\" in member.name or not parts:
        raise SourceError(f"`{path}` must keep its members inside, found {brief(member.name)}: do not use it")
    if not member.isreg() or member.issparse():
        raise SourceError(
            f"`{path}` must hold plain files, found a link or a device {brief(member.name)}: do not use it"
        )
    parts = tuple(part for part in parts if part != ".")
    at = next((k for k, part in enumerate(parts) if part in ("calendars", "instruments", "features")), 0)
    return "/".join(parts[at:])


def _write(path: Path, stream: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.read())


def _get(address: str, place: str, part: Path, tag: str, job: Job) -> str | None:
    """Fetch a file into `part`, on from where a try before broke off; the server's tag of it, None where it is that of `tag`."""
    mark = part.with_suffix(".mark")
    begun = part.stat().st_size if part.is_file() and mark.is_file() else 0
    headers = {"User-Agent": "qlib-ext", "Accept-Encoding": "identity"}
    from_ = _tag(mark, place) if begun else ""
    if from_:
        headers |= {"Range": f"bytes={begun}-", "If-Range": from_}
    elif tag:
        headers["If-None-Match"] = tag
    with requests.get(address, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code == 304:
            return None
        if answer.status_code == 416:  # it was whole, or is another one now
            part.unlink()
            raise PassingError("the part that came before fits no more")
        answer.raise_for_status()
        goes_on = from_ and answer.status_code == 206
        now = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        length = int(answer.headers.get("Content-Length") or 0) + (begun if goes_on else 0)
        write_whole(mark, json.dumps({"tag": now, "address": place}))
        done = begun if goes_on else 0
        with io.FileIO(part, "ab" if goes_on else "wb") as file:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                done += len(block)
                if job.progress is not None and length:
                    job.progress(done, length, NAME)
    if length and done < length:
        raise requests.exceptions.ConnectionError(f"{done:,} of {length:,} bytes came")
    mark.unlink()
    return now


def _tag(mark: Path, place: str) -> str:
    """The tag of a file of which a part came; empty where it is not known, or came from another address."""
    try:
        found = read_json(mark)
    except ValueError:
        return ""
    return str(found["tag"]) if isinstance(found, dict) and found.get("address") == place else ""


def _refused(address: str, error: Exception) -> SourceError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in {403, 404, 410, 451}:
        return SourceError(
            f"the archive is not there any more, or not for everybody: HTTP {status} for `{masked(address)}`; see whether its makers "
            f"have moved it, and name the new place by `--option address=URL`, or a file by `--option file=FILE`. {KEPT}"
        )
    return SourceError(
        f"the download of `{masked(address)}` failed with {shown(error)}; try again, or name a file. {KEPT}"
    )


def _bars(store: QlibStore, job: Job) -> Bars:
    """The bars of the unpacked market that are wanted, in shares and currency."""
    codes = store.instruments()
    if job.codes is not None:
        codes = [code for code in codes if code in job.codes or code in job.benchmarks]
    first = max(job.start, job.known - pd.Timedelta(days=TAIL_DAYS)) if job.known is not None else job.start
    new = set(codes) - job.have
    here = (store.calendar >= (job.start if job.known is not None and new else first)) & (
        store.calendar <= job.end
    )
    if not here.any() or not codes:
        raise SourceError(
            f"the archive must have bars of {job.start:%Y-%m-%d} to {job.end:%Y-%m-%d}, found {counted(len(codes), 'code')} from "
            f"{store.calendar[0]:%Y-%m-%d} to {store.calendar[-1]:%Y-%m-%d}"
        )
    table = {}
    for name in ORDER:
        (values,) = store.read([name], codes)
        values = np.ascontiguousarray(values[here].T)
        if not np.isnan(values).all():
            table[name] = values
    for need in ("close", "volume"):
        if need not in table:
            raise SourceError(f"the archive must have the field {need}, found {', '.join(table) or 'none'}")
    stocks = np.array([not is_index(code) for code in codes])
    benchmarks = tuple(code for code in codes if is_index(code))
    settings = ImportSettings(adjustment="adjusted", volume="adjusted", benchmarks=benchmarks)
    settle_units(table, codes, stocks, settings, job.notes)
    fields = {name: values.T for name, values in table.items()}
    return Bars(store.calendar[here], tuple(codes), fields, (), settings)


def _universes(store: QlibStore, job: Job) -> dict[str, pd.DataFrame]:
    """The lists in the archive: those that are wanted, or all of them."""
    there = [name for name in store.universes() if name != "all"]
    missing = sorted(set(job.universes) - set(there))
    if missing:
        raise SourceError(
            f"the archive must hold the universes {', '.join(missing)}, found {', '.join(there) or 'none'}"
        )
    found = {}
    for name, spells in _spells(store, job.universes or there):
        found[name] = spells
        last = spells["to"].max()
        if last < store.calendar[-1]:
            job.notes.add(
                f"universe `{name}` of the archive ends on {last:%Y-%m-%d}, before its bars do: empty since"
            )
    return found


def _spells(store: QlibStore, names: tuple[str, ...] | list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    for name in names:
        spells = store.membership(name)
        yield name, spells.rename(columns={"instrument": "code", "start": "from", "end": "to"})
