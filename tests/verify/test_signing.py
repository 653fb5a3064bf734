from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from qlib_ext.checks import UserError
from qlib_ext.verify.signing import check_signature, sign, signature_of

MINISIGN = shutil.which("minisign")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "b.zip").write_bytes(b"a bundle")
    return tmp_path / "b.zip"


def test_without_the_program_the_way_out_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for call in (lambda: sign(bundle, bundle), lambda: check_signature(bundle, "RWQ")):
        with pytest.raises(UserError, match=r"by the program minisign, found none: install it from https://"):
            call()


def test_a_key_and_a_signature_must_be_there(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "minisign"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'Signature verification failed' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with pytest.raises(UserError, match="must be the file of a secret key of minisign, found none"):
        sign(bundle, tmp_path / "none.key")
    with pytest.raises(UserError, match=r"has no signature: expected .*b\.zip\.minisig, found none"):
        check_signature(bundle, "RWQ")
    signature_of(bundle).write_text("none")
    with pytest.raises(UserError, match=r"no signature of it by that key \(Signature verification failed\)"):
        check_signature(bundle, "RWQ")


@pytest.mark.skipif(MINISIGN is None, reason="minisign is not installed")
def test_what_was_signed_is_what_is_there(bundle: Path, tmp_path: Path) -> None:
    keys = ["-p", str(tmp_path / "key.pub"), "-s", str(tmp_path / "key.sec")]
    subprocess.run([str(MINISIGN), "-G", "-W", *keys], check=True, capture_output=True)
    sign(bundle, tmp_path / "key.sec")
    public = (tmp_path / "key.pub").read_text().splitlines()[-1]
    check_signature(bundle, public)
    check_signature(bundle, str(tmp_path / "key.pub"))
    bundle.write_bytes(b"another")
    with pytest.raises(UserError, match="is no signature of it by that key"):
        check_signature(bundle, public)
