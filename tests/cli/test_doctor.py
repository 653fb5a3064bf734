"""`qlib-ext doctor`: what it tells, what it finds wrong, and that no secret gets out of it."""

from __future__ import annotations

import builtins
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qlib_ext
from qlib_ext.cli import doctor
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the package asks for, as its metadata would say."""
    wanted = ["numpy>=2", "torch>=2", 'no-such-thing>=1; extra == "planted"', 'rich; extra == "shown"']
    wanted.append('qlib-ext[planted]; extra == "all"')
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: qlib_ext.__version__ if name == "qlib-ext" else version(name),
    )

    class Metadata:
        def get_all(self, name: str) -> list[str]:
            return ["all", "planted", "shown"]

    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: Metadata())
    return wanted


def told(command: Command, *arguments: object) -> tuple[int, dict[str, Any]]:
    status, out, err = command("doctor", "--json", *arguments)
    assert err == ""
    return status, json.loads(out)


class TestWhatIsTold:
    def test_versions_device_place_of_runs_and_disk(self, command: Command) -> None:
        status, found = told(command)
        assert status == 0
        assert found["problems"] == []
        assert found["package"]["version"] == qlib_ext.__version__
        assert found["dependencies"]["numpy"] == np.__version__
        assert found["extras"] == {"planted": False, "shown": True}
        assert found["device"]["auto"] in ("cpu", "cuda")
        assert found["mlflow"] == {"uri": "sqlite:///mlflow.db", "from": "the default", "bytes": 0}
        assert found["disk"]["free"].endswith(" GB")
        assert "store" not in found

    def test_a_store(self, command: Command, tmp_path: Path) -> None:
        SampleMarket(seed=3, stocks=20, start="2015-11-02", end="2016-05-31").write(tmp_path / "store")
        store = QlibStore(tmp_path / "store")
        _, found = told(command, "--store", "store")
        assert found["store"]["days"] == len(store.calendar)
        assert found["store"]["stocks"] == len(store.instruments())
        assert found["store"]["fingerprint"] == store.fingerprint()

    def test_a_person_reads_the_same_in_lines(self, command: Command) -> None:
        status, out, _ = command("doctor")
        assert status == 0
        assert out.startswith(f"qlib-ext   {qlib_ext.__version__}, in ")
        assert "Extras     shown; not planted\n" in out
        assert out.splitlines()[-1] == "Problems   none that can be seen from here"


class TestWhatIsWrong:
    def test_a_dependency_that_is_missing_or_too_old(self, command: Command, known: list[str]) -> None:
        known[:2] = ["no-such-thing>=1", "numpy>=99"]
        status, found = told(command)
        assert status == 1
        assert found["problems"] == [
            "no-such-thing>=1 is not installed: pip install qlib-ext",
            f"numpy>=99 is wanted, found {np.__version__}: pip install qlib-ext",
        ]

    def test_metadata_of_another_version(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qlib_ext, "__version__", "9.9")
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.4")
        assert told(command)[1]["problems"] == ["qlib-ext is 9.9, and pip knows 2.4: install it again"]

    def test_a_library_that_cannot_be_imported(
        self, command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = builtins.__import__

        def broken(name: str, *rest: Any) -> Any:
            if name == "torch":
                raise OSError("libcudart.so.12: cannot open shared object file")
            return real(name, *rest)

        monkeypatch.setattr(builtins, "__import__", broken)
        status, found = told(command)
        assert status == 1
        assert found["problems"] == ["device: OSError: libcudart.so.12: cannot open shared object file"]
        assert "device" not in found

    def test_no_store_and_no_database(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "mlflow.db").write_text("no database at all, and long enough to be looked at")
        status, out, _ = command("doctor", "--store", "nowhere")
        assert status == 1
        assert "Problem 1  mlflow: " in out
        assert "Problem 2  store: StoreError: " in out


class TestSecrets:
    SECRETS = ("hunter2-of-the-uri", "s3cret-of-the-query", "tok-of-the-environment", "qlib-data-of-mine")

    @pytest.mark.parametrize("form", [(), ("--json",)])
    def test_none_gets_out(
        self, form: tuple[str, ...], command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri, query, token, plain = self.SECRETS
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://ann:{uri}@host/runs?sslpassword={query}")
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
        monkeypatch.setenv("QLIB_DATA", f"/data/{plain}")
        status, out, err = command("doctor", *form)
        assert status == 0
        assert not [secret for secret in (*self.SECRETS, "ann") if secret in out + err]
        assert "postgresql://***@host/runs" in out
        assert "MLFLOW_TRACKING_TOKEN" in out  # that it is set, and not to what

    def test_nor_by_what_went_wrong(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail() -> dict[str, Any]:
            raise RuntimeError(f"cannot reach https://ann:{self.SECRETS[0]}@host with {self.SECRETS[2]}")

        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", self.SECRETS[2])
        monkeypatch.setattr(doctor, "_device", fail)
        status, found = told(command)
        assert status == 1
        assert found["problems"] == ["device: RuntimeError: cannot reach https://***@host with ***"]

    def test_the_home_of_a_person_is_no_name(
        self, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        assert told(command)[1]["disk"]["folder"] == "~"
