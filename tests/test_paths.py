from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.paths import inside

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
