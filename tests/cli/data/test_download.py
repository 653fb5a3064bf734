from __future__ import annotations

import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import qlib.tests.data as qlib_getter

from qlib_ext.cli import main as cli
from qlib_ext.market.synthetic.sample import SampleMarket


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of `qlib-ext data download` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["qlib-ext", "data", "download", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with a market of 23 instruments as Qlib's simple one, and nothing else."""
    SampleMarket(stocks=20, start="2014-01-01", end="2014-08-01").write(tmp_path / "source")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in (tmp_path / "source").rglob("*.*"):
            archive.write(path, str(path.relative_to(tmp_path / "source")))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/v2/qlib_data_simple_cn_1d_latest.zip":
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(buffer.getvalue())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setattr(qlib_getter.GetData, "REMOTE_URL", f"http://127.0.0.1:{server.server_port}")
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestDataDownload:
    def test_it_says_what_came_and_what_the_audit_found(
        self, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "market"
        assert run(monkeypatch, "--out", str(out), "--name", "qlib_data_simple") == 0
        captured = capsys.readouterr()
        assert f"{out}: 23 instruments, 143 days from 2014-01-02 to 2014-08-01, " in captured.out
        assert "universes all, csi100, csi300, sse50" in captured.out
        assert "The audit has 0 errors, " in captured.out
        assert f"qlib-ext data check {out}" in captured.out
        assert f"QLIB_DATA={out}" in captured.out
        assert "it/s" not in captured.err  # no bars of progress where nobody looks
        # A second time it is not touched, unless that is asked for.
        assert run(monkeypatch, "--out", str(out), "--name", "qlib_data_simple") == 2
        assert "add --replace" in capsys.readouterr().err
        assert run(monkeypatch, "--out", str(out), "--name", "qlib_data_simple", "--replace") == 0

    def test_what_goes_wrong_is_one_line(
        self, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, "--out", str(tmp_path / "market")) == 2
        captured = capsys.readouterr()
        (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert f"HTTP 404 for `{served}/v2/qlib_data_cn_1d_latest.zip`" in line
        assert captured.out == ""
        assert not (tmp_path / "market").exists()
