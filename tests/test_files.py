"""Files that are none, or that memory cannot hold, are refused before they are read. The limits are set low here."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
import yaml

from qlib_ext import files
from qlib_ext.checks import UserError
from qlib_ext.files import check_yaml, load_yaml, open_file, open_table, read_bytes, read_json, read_text

BOMB = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


class StrangeError(UserError):
    pass


class TestOpen:
    @pytest.mark.parametrize(
        ("make", "kind"),
        [
            (os.mkfifo, "a pipe"),
            (os.mkdir, "a folder"),
            (lambda path: path.symlink_to("/dev/zero"), "a device"),
        ],
    )
    def test_what_is_no_file(self, make, kind: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
        make(tmp_path / "x")
        for read in (open_file, lambda path: read_bytes(path, 10), lambda path: open_table(path).__enter__()):
            with pytest.raises(UserError, match=f"x` must be a regular file, found {kind}"):
                read(tmp_path / "x")

    def test_a_file_that_is_not_there_is_pythons_own_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            open_file(tmp_path / "x")

    def test_no_descriptor_is_left_open(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"12345")
        for _ in range(3):
            with pytest.raises(UserError):
                open_file(tmp_path / "x", 4)
            first = os.open(tmp_path / "x", os.O_RDONLY)
            os.close(first)
        again = os.open(tmp_path / "x", os.O_RDONLY)
        os.close(again)
        assert again == first


class TestRead:
    def test_up_to_the_limit(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"12345")
        assert read_bytes(tmp_path / "x", 5) == b"12345"
        with pytest.raises(StrangeError, match="x` must have at most 4 bytes, found 5 bytes or more"):
            read_bytes(tmp_path / "x", 4, StrangeError)

    def test_a_sparse_file_is_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "x").touch()
        os.truncate(tmp_path / "x", 1 << 40)
        with pytest.raises(UserError, match="found 1,048,576 MiB or more"):
            read_text(tmp_path / "x")

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="a system without /proc")
    def test_a_file_that_does_not_say_its_size(self) -> None:
        with pytest.raises(UserError, match="must have at most 10 bytes, found 11 bytes or more"):
            read_bytes("/proc/self/maps", 10)

    def test_lines_end_as_pythons_do(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes("ä\r\nb\rc\n".encode())
        assert read_text(tmp_path / "x") == (tmp_path / "x").read_text(encoding="utf-8") == "ä\nb\nc\n"

    def test_json(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text('{"a": [1]}')
        assert read_json(tmp_path / "x") == {"a": [1]}
        (tmp_path / "x").write_text("[" * 100_000)
        with pytest.raises(ValueError, match="it is nested too deep"):
            read_json(tmp_path / "x")


class TestTable:
    def read(self, path: Path, most: int | None = None, encoding: str = "utf-8") -> bytes:
        with open_table(path, most, encoding) as table:
            return table.read()

    @pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
    def test_it_is_read_as_it_is(self, name: str, tmp_path: Path) -> None:
        text = b"a,b\r\n" + b"1,2\n" * 200_000
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
        assert self.read(tmp_path / name) == text

    def test_what_unpacks_to_far_more_than_its_size(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(files, "GZIP_FREE", 1_000)
        (tmp_path / "x.gz").write_bytes(gzip.compress(b"1,2,3\n" * 100_000))
        with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
            self.read(tmp_path / "x.gz")

    @pytest.mark.parametrize("end", [b"", b"\n"])
    def test_a_line_without_end(self, end: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "LINE", 10)
        (tmp_path / "x").write_bytes(b"a\n" + b"1" * 600_000 + end)
        with pytest.raises(UserError, match="must have lines of at most 10 bytes"):
            self.read(tmp_path / "x")

    def test_a_zero_byte(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"a,b\n1,\0\n")
        with pytest.raises(UserError, match="must be text, found a zero byte"):
            self.read(tmp_path / "x")
        (tmp_path / "x").write_text("a,b\n", encoding="utf-16")
        assert self.read(tmp_path / "x", encoding="utf_16").decode("utf-16") == "a,b\n"

    def test_more_than_is_read_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"1234567\n" * 100_000)
        with pytest.raises(UserError, match="must have fewer than 300,000 bytes in what is read at once"):
            self.read(tmp_path / "x", 300_000)
        with open_table(tmp_path / "x", 300_000) as table:
            pieces = []
            while piece := table.read(200_000):
                pieces.append(piece)
                table.refill()
        assert b"".join(pieces) == (tmp_path / "x").read_bytes()


class TestYaml:
    @pytest.mark.parametrize(
        "text",
        [BOMB, BOMB.replace("[", "{<<: [").replace("]", "]}").replace("[x, x]", "{y: 1, z: 2}")],
        ids=["aliases", "merges"],
    )
    def test_aliases_of_aliases(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"more than 100,000 values .* when its aliases are written out"):
            load_yaml(text)

    def test_letters_count_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "YAML_LETTERS", 100)
        load_yaml(f"[&a {'x' * 30}, *a]")
        with pytest.raises(ValueError, match="or 100 letters"):
            load_yaml(f"[&a {'x' * 30}, *a, *a, *a]")

    @pytest.mark.parametrize("text", ["[" * 5_000, "".join(f"{' ' * n}a:\n" for n in range(100))])
    def test_nesting(self, text: str) -> None:
        with pytest.raises(ValueError, match="it is nested deeper than 64 levels"):
            load_yaml(text)

    def test_what_a_file_has_passes(self) -> None:
        text = "base: &base {a: 1, b: [x, y]}\nown: {<<: *base, c: *base}\n"
        assert load_yaml(text)["own"] == {"a": 1, "b": ["x", "y"], "c": {"a": 1, "b": ["x", "y"]}}

    def test_values_are_counted_as_they_are_written_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "YAML_VALUES", 12)
        check_yaml(yaml.parse("{a: &a [1, 2, 3], b: *a}"))  # 1 + 2 keys + 2 lists of 4
        monkeypatch.setattr(files, "YAML_VALUES", 10)
        with pytest.raises(ValueError, match="more than 10 values"):
            check_yaml(yaml.parse("{a: &a [1, 2, 3], b: *a}"))

    def test_what_is_none(self) -> None:
        with pytest.raises(ValueError, match="expected ',' or"):
            load_yaml("a: [1")
