from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.paths import file_name, inside, shortened, writable

NAMES = st.lists(st.sampled_from(["..", ".", "a", "b c", "/", "", "\\", "~", "x.txt"]), max_size=5).map(
    "/".join
)


class TestInside:
    @pytest.mark.parametrize("name", ["a", "signal/predictions.parquet", "a/./b", "..a/b..", "~/x", "a b/ü"])
    def test_names_stay_below(self, name: str, tmp_path: Path) -> None:
        assert inside(tmp_path, name, what="x") == tmp_path / name

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "../x", "a/../../x", "a/..", "/etc/passwd", "//x", "..\\x", "a\0b"]
    )
    def test_those_that_would_not_are_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="an artifact must stay below its folder, found"):
            inside(tmp_path, name, what="an artifact")

    def test_a_link_out_is_refused_and_one_within_is_not(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        (root / "a").mkdir(parents=True)
        (root / "within").symlink_to(root / "a")
        (root / "out").symlink_to(tmp_path)
        assert inside(root, "within/x", what="x") == root / "within" / "x"
        for name in ("out", "out/x", "out/root/a"):
            if name == "out/root/a":
                assert inside(root, name, what="x")  # it comes back
                continue
            with pytest.raises(UserError, match="which is a link to"):
                inside(root, name, what="x")

    def test_a_root_that_is_a_link_is_no_matter(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert inside(tmp_path / "link", "a/b", what="x") == tmp_path / "link" / "a" / "b"

    @given(NAMES)
    def test_whatever_passes_is_below(self, name: str) -> None:
        root = Path("/nowhere/in/particular")
        try:
            path = inside(root, name, what="x")
        except UserError:
            return
        assert path.resolve().is_relative_to(root)
        assert path.resolve() != root


class TestWritable:
    def test_a_folder_that_is_there_or_can_be_made(self, tmp_path: Path) -> None:
        for folder in (tmp_path, tmp_path / "not" / "yet"):
            assert writable(folder, name="`--out`", way_out="name another") == folder
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["file", "file/below/it", "dangling", "a" * 300, "a\0b"])
    def test_one_that_cannot_is_told(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "at all")
        with pytest.raises(
            UserError, match=r"^`--out` must be a folder that can be written.*; name another$"
        ):
            writable(tmp_path / name, name="`--out`", way_out="name another")

    def test_a_file_system_that_cannot_be_written_not_even_by_root(self) -> None:
        if not Path("/proc/self").exists():
            pytest.skip("this system has no /proc")
        with pytest.raises(UserError, match="must be a folder that can be written, found '/proc/x'"):
            writable(Path("/proc/x"), name="`--out`", way_out="name another")


class TestNames:
    def test_what_is_short_enough_stays(self) -> None:
        assert shortened("a/b ü", 20) == "a/b ü"
        assert file_name("a/b <i>ü.x-y") == "a-b-i-ü.x-y"

    @given(st.text(min_size=1), st.integers(20, 60))
    def test_a_long_one_has_its_bytes(self, name: str, most: int) -> None:
        whole = name * 60
        short = shortened(whole, most)
        assert len(short.encode("utf-8", "surrogatepass")) <= max(most, 0) or whole == short
        assert shortened(whole, most) == short

    def test_two_that_begin_alike_differ(self) -> None:
        first, second = file_name("沪" * 300 + "a"), file_name("沪" * 300 + "b")
        assert first != second
        assert first[:20] == second[:20] == "沪" * 20
        assert max(len(first.encode()), len(second.encode())) <= 100

    def test_a_file_can_be_called_so(self, tmp_path: Path) -> None:
        (tmp_path / file_name("x" * 5000)).touch()
