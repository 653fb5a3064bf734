"""A packed market from a file and from a server on this machine; hostile ones are refused."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests

from qlib_ext.checks import UserError
from qlib_ext.market.fetch.downloads import Downloads
from qlib_ext.market.fetch.fetch import fetch
from qlib_ext.market.fetch.polite import SourceError
from qlib_ext.market.fetch.source import Job
from qlib_ext.market.fetch.sources.archive import Archive, unpack
from qlib_ext.market.store import QlibStore, write_store
from tests.market.fetch.conftest import INDEX, STOCKS, Market


def packed(market: Market, folder: Path, until: str) -> Path:
    """As the community's release: volumes in hands, amounts in thousands, a folder around all; its csi300 ends early."""
    rows = market.bars[market.bars["date"] <= until]
    days = pd.DatetimeIndex(sorted(rows["date"].unique()))
    codes = sorted({*STOCKS, INDEX})

    def wide(values: pd.Series) -> np.ndarray:
        table = values.groupby([rows["date"], rows["code"]]).first().unstack()
        return table.reindex(index=days, columns=codes).to_numpy(np.float32)

    bars = {name: wide(rows[name] * rows["factor"]) for name in ("open", "high", "low", "close")}
    bars |= {"volume": wide(rows["volume"] / 100 / rows["factor"]), "amount": wide(rows["amount"] / 1000)}
    bars |= {"factor": wide(rows["factor"])}
    spells = pd.DataFrame({"instrument": [*STOCKS[:3], "SH600999"], "start": days[0], "end": days[-3]})
    root = folder / "qlib_bin"
    write_store(root, days, codes, bars, {"csi300": spells})
    path = folder / f"{until}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root, "./qlib_bin")
        archive.addfile(tarfile.TarInfo("qlib_bin/README"), io.BytesIO())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = Market()
    return {day: packed(made, tmp_path_factory.mktemp("packed"), day) for day in ("2024-03-08", "2024-03-15")}


class Server:
    """Serves one file with a mark, in parts where asked; `cut` answers break off half-way."""

    def __init__(self) -> None:
        self.content, self.tag, self.cut, self.status = b"", '"1"', 0, 200
        self.asked: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(dict(self.headers))
                if server.status != 200:
                    self.send_error(server.status)
                    return
                if self.headers.get("If-None-Match") == server.tag:
                    self.send_response(304)
                    self.end_headers()
                    return
                begin = 0
                if self.headers.get("If-Range") == server.tag:
                    begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                self.send_response(206 if begin else 200)
                self.send_header("ETag", server.tag)
                body = server.content[begin:]
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                server.cut -= 1
                self.wfile.write(body[: len(body) // 2] if server.cut >= 0 else body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/qlib_bin.tar.gz"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.mark.parametrize("tag", ["", '"1"'])
def test_a_new_file_replaces_the_old_one(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server without marks too; a password in the address is not kept."""
    statuses, bodies, asked = [200, 416, 200], [b"one", b"", b"two"], []

    class Said(requests.Response):
        def __init__(self) -> None:
            super().__init__()
            self.status_code, self.raw = statuses.pop(0), io.BytesIO(bodies.pop(0))
            self.headers.update({"ETag": tag} if tag else {})

    def get(address: str, headers: dict[str, str], **_: object) -> Said:
        asked.append(headers)
        return Said()

    monkeypatch.setattr(requests, "get", get)
    source = Archive(address="https://ann:a-long-password@host/q.tar.gz")
    kept = Downloads(tmp_path / "kept", source.identity)
    job = Job(kept.root, pd.Timestamp("2024-01-24"), pd.Timestamp("2024-03-08"))
    assert source._download(kept, job).read_bytes() == b"one"
    (kept.root / "qlib_bin.tar.part").write_bytes(b"tw")
    mark = {"tag": '"2"', "address": hashlib.sha256(source.address.encode()).hexdigest()}
    (kept.root / "qlib_bin.tar.mark").write_text(json.dumps(mark))
    assert source._download(kept, job).read_bytes() == b"two"
    assert [headers.get("Range") for headers in asked] == [None, "bytes=2-", None]
    assert asked[2].get("If-None-Match") == (tag or None)
    assert all(b"a-long-password" not in path.read_bytes() for path in kept.root.iterdir())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


Closing = Callable[[str], pd.Timestamp]


class TestFile:
    def test_a_store_of_shares_and_yuan_is_made_and_goes_on(
        self, files: dict[str, Path], market: Market, out: Path, closing: Closing
    ) -> None:
        given = {"start": "2024-01-24"}
        made = fetch(Archive(file=str(files["2024-03-08"])), out, now=closing("2024-03-08"), **given)  # type: ignore[arg-type]
        market.check(made.store)
        (amount,) = made.store.read(["amount"], ["SH600000"])[:, :, 0]
        np.testing.assert_allclose(amount, market.of("SH600000")["amount"], rtol=1e-6)
        assert set(made.store.membership("stocks")["instrument"]) == set(STOCKS)
        assert set(made.store.membership("csi300")["instrument"]) == {*STOCKS[:3], "SH600999"}
        assert any("`csi300` of the archive ends on 2024-03-06" in note for note in made.notes)
        assert any("README" in note for note in made.notes)
        market.until = pd.Timestamp("2024-03-15")
        later = fetch(Archive(file=str(files["2024-03-15"])), out, now=closing("2024-03-15"))
        assert len(later.days) == 5
        market.check(later.store)
        assert later.store.membership("csi300")["end"].max() == pd.Timestamp("2024-03-13")
        assert not fetch(Archive(file=str(files["2024-03-15"])), out, now=closing("2024-03-15")).changed

    def test_a_file_that_is_not_there(self, out: Path, tmp_path: Path, closing: Closing) -> None:
        with pytest.raises(UserError, match="found nothing at"):
            fetch(Archive(file=str(tmp_path / "no.tar.gz")), out, now=closing("2024-03-08"))

    def test_a_universe_that_is_not_in_it(self, files: dict[str, Path], out: Path, closing: Closing) -> None:
        source = Archive(file=str(files["2024-03-08"]))
        with pytest.raises(SourceError, match="must hold the universes csi500, found csi300"):
            fetch(source, out, universes=("csi500",), now=closing("2024-03-08"))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"file": "a", "address": "https://b/c"}, "must not both be given"),
            ({"address": "file:///etc/passwd"}, "`address` must begin with https"),
        ],
    )
    def test_arguments(self, given: dict[str, str], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Archive(**given)


def hostile(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"x"
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
    return member


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([hostile("../calendars/day.txt")], "must keep its members inside"),
        ([hostile("/calendars/day.txt")], "must keep its members inside"),
        ([hostile("q/calendars/../../../day.txt")], "must keep its members inside"),
        ([hostile("q/calendars\\day.txt")], "must keep its members inside"),
        (
            [hostile("q/calendars/day.txt", tarfile.SYMTYPE, "/etc/passwd")],
            "must hold plain files, found a link",
        ),
        ([hostile("q/calendars/day.txt", tarfile.LNKTYPE, "x")], "must hold plain files, found a link"),
        ([hostile("q/features/sh600000/close.day.bin", tarfile.FIFOTYPE)], "must hold plain files"),
        ([hostile("q/calendars/day.txt"), hostile("p/calendars/day.txt")], "one name twice"),
    ],
)
def test_hostile_members_are_refused(members: list[tarfile.TarInfo], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    with pytest.raises(SourceError, match=message):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "day.txt").exists()


def test_what_unpacks_to_more_than_it_should_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qlib_ext.market.fetch.sources.archive.FREE", 1000)
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for k in range(40):
            member = tarfile.TarInfo(f"q/features/sh60000{k}/close.day.bin")
            member.size = 100_000
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(SourceError, match="more than a market has"):
        unpack(path, tmp_path / "out")


def test_a_cut_file_is_told(files: dict[str, Path], tmp_path: Path) -> None:
    content = files["2024-03-08"].read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="must be a whole packed market"):
        unpack(tmp_path / "cut.tar.gz", tmp_path / "out")


class TestAddress:
    def test_it_goes_on_where_it_broke_off_and_asks_for_no_file_twice(
        self,
        monkeypatch: pytest.MonkeyPatch,
        server: Server,
        files: dict[str, Path],
        market: Market,
        out: Path,
        closing: Closing,
    ) -> None:
        monkeypatch.setattr("qlib_ext.market.fetch.sources.archive.BLOCK", 500)
        server.content, server.cut = files["2024-03-08"].read_bytes(), 2
        made = fetch(Archive(address=server.url), out, start="2024-01-24", now=closing("2024-03-08"))
        market.check(made.store)
        begun = [
            int(asked["Range"].removeprefix("bytes=")[:-1]) for asked in server.asked if "Range" in asked
        ]
        assert len(begun) == 2
        assert 0 < begun[0] < begun[1]
        assert not fetch(Archive(address=server.url), out, now=closing("2024-03-11")).changed
        assert server.asked[-1]["If-None-Match"] == '"1"'
        server.content, server.tag = files["2024-03-15"].read_bytes(), '"2"'
        assert len(fetch(Archive(address=server.url), out, now=closing("2024-03-15")).days) == 5

    @pytest.mark.parametrize(
        ("status", "message"), [(404, "not there any more, or not for everybody"), (503, "failed 5 times")]
    )
    def test_what_went_wrong(
        self, server: Server, out: Path, closing: Closing, status: int, message: str
    ) -> None:
        server.status = status
        with pytest.raises(SourceError, match=message):
            fetch(Archive(address=server.url), out, now=closing("2024-03-08"))
        assert not out.exists()

    def test_a_page_in_its_place(self, server: Server, out: Path, closing: Closing) -> None:
        server.content = b"<html>maintenance</html>"
        with pytest.raises(SourceError, match="must be a whole packed market"):
            fetch(Archive(address=server.url), out, now=closing("2024-03-08"))


def test_an_existing_store_of_the_same_market_goes_on(
    files: dict[str, Path], market: Market, tmp_path: Path, closing: Closing
) -> None:
    """Of whatever a folder of downloads does not know, a month before the store's end is compared."""
    out = tmp_path / "store"
    fetch(
        Archive(file=str(files["2024-03-08"])),
        out,
        start="2024-01-24",
        folder=tmp_path / "one",
        now=closing("2024-03-08"),
    )
    fetch(Archive(file=str(files["2024-03-15"])), out, folder=tmp_path / "two", now=closing("2024-03-15"))
    market.until = pd.Timestamp("2024-03-15")
    market.check(QlibStore(out))
