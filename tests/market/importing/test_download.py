from __future__ import annotations

import errno
import functools
import io
import os
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import qlib.tests.data as qlib_getter
import requests

from qlib_ext.checks import UserError
from qlib_ext.market.importing.download import download
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket

OWN_VERSION = "/v2/qlib_data_cn_1d_0.9.zip"
LATEST = "/v2/qlib_data_cn_1d_latest.zip"


def zipped(root: Path, folder: str = "") -> bytes:
    """A zip of all files of `root`, in a folder of it where one is named."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, str(Path(folder) / path.relative_to(root)))
    return buffer.getvalue()


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


class Server:
    """Serves on 127.0.0.1 what `files` holds under a path: bytes, a status, or a function of the request."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | int | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                answer = server.files.get(self.path, 404)
                if callable(answer):
                    answer(self)
                elif isinstance(answer, int):
                    self.send_error(answer)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "market"
    SampleMarket(stocks=20, start="2014-01-01", end="2014-08-01").write(root)
    shutil.rmtree(root / "side")
    return root


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that Qlib's getter takes for its own."""
    server = Server()
    monkeypatch.setattr(qlib_getter.GetData, "REMOTE_URL", server.url)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("another") / "market"
    SampleMarket(seed=1, stocks=20, start="2014-01-01", end="2014-08-01").write(root)
    return root


@pytest.fixture
def old(another: Path, tmp_path: Path) -> Path:
    """Another market where the download is to go."""
    return Path(shutil.copytree(another, tmp_path / "old" / "market"))


class TestDownload:
    def test_the_store_is_that_of_the_server(self, server: Server, market: Path, tmp_path: Path) -> None:
        server.files[LATEST] = zipped(market)
        out = tmp_path / "deep" / "cn_data"
        store = download(out)
        assert store.root == out
        assert store.fingerprint() == QlibStore(market).fingerprint()
        assert contents(out) == contents(market)  # the zip is gone too
        assert [path.name for path in out.parent.iterdir()] == ["cn_data"]
        # First for the file of its own version, then for the latest: as Qlib's getter has it.
        assert server.asked == [OWN_VERSION, LATEST]

    def test_the_file_of_qlibs_own_version_comes_first(
        self, server: Server, market: Path, tmp_path: Path
    ) -> None:
        server.files[OWN_VERSION] = zipped(market)
        download(tmp_path / "m")
        assert set(server.asked) == {OWN_VERSION}

    def test_name_region_and_version_choose_the_file(
        self, server: Server, market: Path, tmp_path: Path
    ) -> None:
        server.files["/v1/qlib_data_simple_us_1d_latest.zip"] = zipped(market)
        download(tmp_path / "m", name="qlib_data_simple", region="us", version="v1")
        assert QlibStore(tmp_path / "m").universes() == ["all", "csi100", "csi300", "sse50"]

    def test_a_folder_around_everything_is_taken_away(
        self, server: Server, market: Path, tmp_path: Path
    ) -> None:
        server.files[LATEST] = zipped(market, "features")  # a name of the store itself, to make it hard
        download(tmp_path / "m")
        assert contents(tmp_path / "m") == contents(market)

    def test_a_name_that_leads_out_stays_within(self, server: Server, market: Path, tmp_path: Path) -> None:
        content = io.BytesIO(zipped(market))
        with zipfile.ZipFile(content, "a") as archive:
            archive.writestr("../../outside.txt", "far")
        server.files[LATEST] = content.getvalue()
        download(tmp_path / "a" / "b" / "m")
        assert not list(tmp_path.rglob("a/outside.txt"))
        assert not (tmp_path / "outside.txt").exists()


class TestWhatIsThere:
    def test_a_store_is_left_alone(self, server: Server, old: Path) -> None:
        before = contents(old)
        with pytest.raises(
            UserError, match=r"holds a market store already; add --replace .* Nothing was down"
        ):
            download(old)
        assert contents(old) == before
        assert server.asked == []

    def test_on_demand_it_is_replaced(self, server: Server, market: Path, old: Path) -> None:
        server.files[LATEST] = zipped(market)
        download(old, replace=True)
        assert contents(old) == contents(market)  # the side data of the sample market went with it

    def test_side_data_of_the_user_stay(self, server: Server, market: Path, old: Path) -> None:
        (old / "side" / "sample.json").unlink()
        server.files[LATEST] = zipped(market)
        side = contents(old / "side")
        download(old, replace=True)
        assert contents(old / "side") == side
        assert QlibStore(old).fingerprint() == QlibStore(market).fingerprint()

    def test_something_else_is_never_replaced(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "thesis.tex").write_text("dear")
        with pytest.raises(UserError, match="holds something else than a market store"):
            download(tmp_path, replace=True)
        assert contents(tmp_path) == {"thesis.tex": b"dear"}
        assert server.asked == []

    def test_a_damaged_store_can_be_replaced(self, server: Server, market: Path, old: Path) -> None:
        (old / "calendars" / "day.txt").unlink()
        server.files[LATEST] = zipped(market)
        download(old, replace=True)
        assert QlibStore(old).fingerprint() == QlibStore(market).fingerprint()


def break_off(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[: len(content) // 2])

    return answer


def fall_silent(content: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content[:100])
        request.wfile.flush()
        time.sleep(1.0)

    return answer


def say_nothing(request: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)


class TestFailures:
    @pytest.fixture(autouse=True, params=["new", "replace"])
    def nothing_changes(
        self, request: pytest.FixtureRequest, old: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        """Whatever goes wrong: the store is what it was, and nothing lies beside it."""
        if request.param == "new":
            shutil.rmtree(old)
        before = contents(old.parent)
        yield
        assert contents(old.parent) == before
        assert {path.name for path in old.parent.iterdir()} <= {"market"}

    def test_it_is_not_there(self, server: Server, old: Path) -> None:
        with pytest.raises(
            UserError,
            match=rf"not there any more.* HTTP 404 for `{server.url}{LATEST}`; .*qlib-ext data import`",
        ):
            download(old, replace=True)

    @pytest.mark.parametrize(
        ("status", "message"),
        [(403, "or not for everybody: HTTP 403"), (503, "the server refused: HTTP 503")],
    )
    def test_the_server_refuses(self, server: Server, old: Path, status: int, message: str) -> None:
        server.files[OWN_VERSION] = status
        with pytest.raises(UserError, match=message):
            download(old, replace=True)

    def test_no_network(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        monkeypatch.setattr(qlib_getter.GetData, "REMOTE_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(UserError, match=r"cannot be reached \(Connection refused\); see to the network"):
            download(old, replace=True)

    def test_no_such_host(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        with pytest.raises(UserError, match=r"cannot be reached \(Name or service not known\)"):
            download(old, replace=True)

    @pytest.mark.parametrize("behaviour", ["silent", "stalls"])
    def test_the_server_falls_silent(
        self, server: Server, old: Path, market: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str
    ) -> None:
        monkeypatch.setattr(requests, "get", functools.partial(with_timeout, requests.get, 0.3))
        server.files[OWN_VERSION] = say_nothing if behaviour == "silent" else fall_silent(zipped(market))
        with pytest.raises(UserError, match="did not answer in time, or fell silent; try again later"):
            download(old, replace=True)

    def test_the_connection_breaks_off(self, server: Server, old: Path, market: Path) -> None:
        server.files[OWN_VERSION] = break_off(zipped(market))
        with pytest.raises(UserError, match="broke off in the middle of the file; try again"):
            download(old, replace=True)

    @pytest.mark.parametrize("how", ["cut", "flipped", "page"])
    def test_the_zip_is_broken(self, server: Server, old: Path, market: Path, how: str) -> None:
        content = bytearray(zipped(market))
        if how == "flipped":
            content[len(content) // 2] ^= 0xFF
        server.files[OWN_VERSION] = {
            "cut": bytes(content[:-5000]),
            "flipped": bytes(content),
            "page": b"<html>Sign in to this hotel's network</html>",
        }[how]
        with pytest.raises(UserError, match=r"is no whole zip file \(.*\); try again later"):
            download(old, replace=True)

    def test_the_zip_holds_something_else(self, server: Server, old: Path, market: Path) -> None:
        server.files[OWN_VERSION] = zipped(market / "features")
        with pytest.raises(
            UserError,
            match=r"is no market store: `the download` is no Qlib data directory: calendars/day.txt,",
        ):
            download(old, replace=True)

    def test_the_disk_is_full(
        self, server: Server, old: Path, market: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        server.files[OWN_VERSION] = zipped(market)
        monkeypatch.setattr(zipfile.ZipFile, "extract", fail)
        with pytest.raises(UserError, match="no room left"):
            download(old, replace=True)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"region": "mars"}, "`region` must be one of cn, us, found 'mars'"),
            ({"name": "rl_data"}, "`name` must be one of qlib_data, qlib_data_simple, found 'rl_data'"),
            ({"version": "2"}, "`version` must be one such as v1 or v2, found '2'"),
        ],
    )
    def test_wrong_arguments(
        self, server: Server, old: Path, arguments: dict[str, str], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            download(old, replace=True, **arguments)  # type: ignore[arg-type]
        assert server.asked == []


def with_timeout(
    get: Callable[..., requests.Response], seconds: float, *args: object, **kwargs: object
) -> object:
    """Qlib's getter waits a minute, which a test does not."""
    assert kwargs["timeout"] == 60
    return get(*args, **{**kwargs, "timeout": seconds})


class TestQlibsGetter:
    def test_its_own_address_is_used(self) -> None:
        assert qlib_getter.GetData.REMOTE_URL.startswith("https://")
