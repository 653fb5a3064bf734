"""Bundles that were cut, changed or made to do harm: each is refused, and the message says by what."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from qlib_ext.files import GZIP_FREE
from qlib_ext.verify.content import read_content
from qlib_ext.verify.opened import BundleError, open_bundle
from tests.verify.conftest import Bundled, index_of, packed, unpacked

SCORES = "signal/predictions.parquet"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def files(trees: Bundled) -> Mapping[str, bytes]:
    return unpacked(trees.path)


@pytest.fixture(scope="module")
def root(trees: Bundled) -> str:
    return f"runs/{trees.run.info.run_id}/"


def refused(path: Path, folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(path, folder / "opened")
    return str(caught.value)


def changed(content: bytes) -> bytes:
    """A table of scores with another one."""
    table = pd.read_parquet(io.BytesIO(content))
    table.iloc[0, 0] += 1
    return table.to_parquet()


def with_index(files: Files, change: Callable[[dict[str, Any]], None]) -> None:
    index = index_of(files)
    change(index)
    files["bundle.json"] = json.dumps(index).encode()


def test_one_that_is_whole_opens(trees: Bundled, tmp_path: Path) -> None:
    bundle = open_bundle(trees.path, tmp_path)
    assert bundle.run == trees.run.info.run_id
    assert bundle.tags(bundle.run)["region"] == "cn"
    assert bundle.workflow()["task"].keys() >= {"model", "dataset", "record"}


def _table(files: Files, root: str) -> None:
    files[root + SCORES] = changed(files[root + SCORES])


def _hash(files: Files, root: str) -> None:
    def change(index: dict[str, Any]) -> None:
        index["runs"][root.split("/")[1]]["artifacts"][SCORES]["sha256"] = "0" * 64

    with_index(files, change)


def _content_hash(files: Files, root: str) -> None:
    def change(index: dict[str, Any]) -> None:
        index["runs"][root.split("/")[1]]["artifacts"]["ranking/daily.parquet"]["content"] = "0" * 16

    with_index(files, change)


def _missing(files: Files, root: str) -> None:
    del files[root + SCORES]


def _added(files: Files, root: str) -> None:
    files[root + "signal/more.parquet"] = b"x"


def _orders(files: Files, root: str) -> None:
    with_index(files, lambda index: index.update(orders="0" * 16))


def _format(files: Files, root: str) -> None:
    with_index(files, lambda index: index.update(format=2))


def _shape(files: Files, root: str) -> None:
    with_index(files, lambda index: index.update(runs=[]))


def _stranger(files: Files, root: str) -> None:
    """A run more, which is none below the one that is bundled."""

    def change(index: dict[str, Any]) -> None:
        index["runs"]["f" * 32] = {"artifacts": {}}

    with_index(files, change)


def _index(files: Files, root: str) -> None:
    del files["bundle.json"]


CASES: Mapping[str, tuple[Callable[[Files, str], None], str]] = {
    "a table was changed": (_table, "bytes, as its index says|is not what its hash says"),
    "a hash was changed": (_hash, "`runs/.*predictions.parquet` is not what its hash says"),
    "a hash of content was changed": (
        _content_hash,
        "`ranking/daily.parquet` does not say what its hash of content",
    ),
    "a file is missing": (_missing, "it lacks 'runs/.*predictions.parquet'"),
    "a file was added": (_added, "it has more than its index says: 'runs/.*more.parquet'"),
    "the hash of the orders was changed": (
        _orders,
        "its hash of the orders is not that of `backtest/orders.parquet`",
    ),
    "another format": (_format, "is of the format 2, and this version reads 1"),
    "an index of another shape": (_shape, "its runs is \\[\\]"),
    "a run of somebody else's": (_stranger, "its run 'f+' is none of those below the others"),
    "no index": (_index, "is no bundle: it has no bundle.json"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_changed_is_refused(
    case: str, files: Mapping[str, bytes], root: str, tmp_path: Path
) -> None:
    change, said = CASES[case]
    copy = dict(files)
    change(copy, root)
    path = packed(tmp_path / "changed.zip", copy)
    with pytest.raises(BundleError, match=said):
        open_bundle(path, tmp_path / "opened")


def test_a_table_with_its_hashes_changed_is_none_that_the_run_wrote(
    files: Mapping[str, bytes], root: str, tmp_path: Path
) -> None:
    copy = forged(files, root, changed)
    assert "as its own `checksums.txt` has it" in refused(packed(tmp_path / "b.zip", copy), tmp_path)


@pytest.mark.parametrize(
    "name", ["../../escaped", "/escaped", "..\\escaped", "C:\\escaped", "runs/../../x", "a\nb"]
)
def test_a_name_that_leads_out_is_refused_before_anything_is_written(
    name: str, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    path = packed(tmp_path / "b.zip", {**files, name: b"x"})
    assert "which leads out of its folder" in refused(path, tmp_path)
    assert not (tmp_path / "opened").exists()
    assert not (tmp_path.parent / "escaped").exists()


def test_a_run_whose_id_leads_out_is_refused(files: Mapping[str, bytes], root: str, tmp_path: Path) -> None:
    copy = dict(files)

    def change(index: dict[str, Any]) -> None:
        index["runs"] = {"../../x": index["runs"].pop(index["run"])}
        index["run"] = "../../x"

    with_index(copy, change)
    assert "it lacks" in refused(packed(tmp_path / "b.zip", copy), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("name", "kind", "content", "said"),
    [
        ("link", 0o120777, b"/etc/passwd", "'link' must be a plain file"),
        ("bundle.json", 0o100644, b"{}", "it has 'bundle.json' twice"),
        ("bomb", 0o100644, bytes(GZIP_FREE + 1), "'bomb' unpacks to 67,108,865 bytes of"),
    ],
)
def test_links_doubles_and_bombs_are_refused(
    name: str, kind: int, content: bytes, said: str, files: Mapping[str, bytes], tmp_path: Path
) -> None:
    path = packed(tmp_path / "b.zip", files)
    entry = zipfile.ZipInfo(name)
    entry.external_attr = kind << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, content, compress_type=zipfile.ZIP_DEFLATED)
    assert said in refused(path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x00" * 100])
def test_what_is_no_zip_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "b.zip").write_bytes(content)
    assert "is no whole zip file" in refused(tmp_path / "b.zip", tmp_path)
    assert "cannot be read" in refused(tmp_path / "none.zip", tmp_path)


def test_one_that_was_cut_is_refused(trees: Bundled, tmp_path: Path) -> None:
    whole = trees.path.read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[: len(whole) // 2])
    assert "is no whole zip file" in refused(tmp_path / "b.zip", tmp_path)


def forged(
    files: Mapping[str, bytes], root: str, change: Callable[[bytes], bytes], *, manifest: bool = True
) -> Files:
    """Other scores, with all hashes made to fit; `manifest` keeps what the run itself wrote of its files."""
    copy = dict(files)
    copy[root + SCORES] = change(copy[root + SCORES])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.parquet"
        file.write_bytes(copy[root + SCORES])
        digest = read_content(file, SCORES).digest()

    def fit(index: dict[str, Any]) -> None:
        index["scores"] = digest
        artifacts = index["runs"][index["run"]]["artifacts"]
        artifacts[SCORES] = {
            "bytes": len(copy[root + SCORES]),
            "sha256": hashlib.sha256(copy[root + SCORES]).hexdigest(),
            "content": digest,
        }
        if not manifest:
            del artifacts["checksums.txt"]

    with_index(copy, fit)
    if not manifest:
        del copy[root + "checksums.txt"]
    return copy
