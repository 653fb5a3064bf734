from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qlib_ext.tracking.checksums import MANIFEST, checksum, from_text, to_text

SUMS = {"data/summary.json": "ab" * 32, "a name  with spaces.csv": "01" * 32}


class TestManifest:
    def test_it_is_read_as_it_was_written(self) -> None:
        assert from_text(to_text(SUMS)) == SUMS
        assert from_text(to_text({})) == {}

    def test_no_bit_of_it_turns_unnoticed(self) -> None:
        whole = to_text(SUMS).encode()
        for place in range(8 * len(whole)):
            turned = bytearray(whole)
            turned[place // 8] ^= 1 << place % 8
            with pytest.raises(ValueError, match=r"own checksum|codec can't decode"):
                from_text(turned.decode())

    def test_none_is_cut_short_unnoticed(self) -> None:
        whole = to_text(SUMS)
        for end in range(len(whole)):
            with pytest.raises(ValueError, match="own checksum"):
                from_text(whole[:end])

    @pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
    def test_sha256sum_reads_it(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "x.json").write_text("{}\n")
        (tmp_path / MANIFEST).write_text(to_text({"data/x.json": checksum(tmp_path / "data" / "x.json")}))
        command = ["sha256sum", "--strict", "--check", MANIFEST]
        assert (
            subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True).stdout
            == "data/x.json: OK\n"
        )
        (tmp_path / "data" / "x.json").write_text("{ }\n")
        assert subprocess.run(command, check=False, cwd=tmp_path, capture_output=True).returncode == 1
