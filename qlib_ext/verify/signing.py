"""A signature beside a bundle, by the program minisign: who vouches for it, which its hashes alone do not say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from qlib_ext.checks import UserError

PROGRAM = "minisign"
WAY_OUT = (
    "install it from https://jedisct1.github.io/minisign (`apt-get install minisign`, `brew install minisign`, `scoop install "
    "minisign`); `minisign -G` makes a pair of keys"
)


def signature_of(bundle: Path) -> Path:
    """Where the signature of a bundle lies."""
    return bundle.with_name(f"{bundle.name}.minisig")


def check_program(key: Path | None = None) -> None:
    """Raise a UserError where minisign is not there, or the secret key is none of this machine."""
    if shutil.which(PROGRAM) is None:
        raise UserError(f"signatures are made and checked by the program {PROGRAM}, found none: {WAY_OUT}")
    if key is not None and not key.is_file():
        raise UserError(
            f"`--sign` must be the file of a secret key of {PROGRAM}, found none at {key}: `minisign -G` makes one"
        )


def sign(bundle: Path, key: Path) -> Path:
    """Sign a bundle with the secret key of a file; minisign asks for its password on the terminal. The signature's file.

    Raises
    ------
    UserError
        If minisign is not there, or refuses.
    """
    check_program(key)
    out = signature_of(bundle)
    done = subprocess.run(
        [PROGRAM, "-S", "-s", str(key), "-m", str(bundle), "-x", str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0 or not out.is_file():
        raise UserError(f"{PROGRAM} signs nothing with {key}: {_said(done.stderr)}")
    return out


def check_signature(bundle: Path, key: str) -> None:
    """Hold a bundle against the signature beside it.

    Parameters
    ----------
    bundle
        The file.
    key
        A public key of minisign, as text or as the file that has it.

    Raises
    ------
    UserError
        If minisign or the signature is not there, or the signature is none of that key for these bytes.
    """
    check_program()
    signature = signature_of(bundle)
    if not signature.is_file():
        raise UserError(f"the bundle {bundle} has no signature: expected {signature}, found none")
    public = ["-p", key] if Path(key).is_file() else ["-P", key]
    done = subprocess.run(
        [PROGRAM, "-V", "-q", "-m", str(bundle), "-x", str(signature), *public],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise UserError(
            f"the bundle {bundle} is refused: {signature.name} is no signature of it by that key ({_said(done.stderr or done.stdout)})"
        )


def _said(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else "it says nothing more"
