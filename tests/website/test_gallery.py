"""Every notebook of the gallery runs and shows what it should."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from website import gallery

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "gallery").glob("*.py"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def done(work: Path, empty_database: Path) -> dict[str, NotebookNode]:
    for path in NOTEBOOKS:
        (work / path.stem).mkdir()
        shutil.copy(empty_database, work / path.stem / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # what an earlier test in this process used
        return gallery.run(NOTEBOOKS, work)


class TestGallery:
    def test_all_run_and_stand_on_the_page(self, done: dict[str, NotebookNode]) -> None:
        page = (ROOT / "docs" / "gallery" / "README.md").read_text(encoding="utf-8")
        assert [*done] == [path.stem for path in NOTEBOOKS]
        assert [name for name in done if f"]({name}.py)" in page] == [*done]

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("store_and_labels", ("trading days", ".png)", 'class="dataframe"')),
            ("train_objects", ("Ranking against RETURN", 'class="dataframe"', "train_objects/report.html")),
            ("own_scores", ("Ranking against", "reason")),
        ],
    )
    def test_they_show_pictures_tables_and_reports(
        self, done: dict[str, NotebookNode], work: Path, name: str, shown: tuple[str, ...]
    ) -> None:
        text, files = gallery.page(done[name], name, work)
        assert not [wanted for wanted in shown if wanted not in text]
        assert not [path for path in files if path not in text]


def test_a_cell_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("# %%\nraise ValueError('this one')\n")
    with pytest.raises(CellExecutionError, match="this one"):
        gallery.run([tmp_path / "bad.py"], tmp_path)
