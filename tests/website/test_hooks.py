"""The site builds: every page is in the navigation, every link and anchor leads somewhere, and nothing is loaded from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parents[2]
LOADED = re.compile(
    r"""<(?:script|img|iframe)[^>]*?src="([^"]+)"|<link[^>]*rel="stylesheet"[^>]*href="([^"]+)\""""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make site` does it, without the notebooks' outputs and the reference."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WHOLE_SITE", "false")
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    return folder


class TestSite:
    @pytest.mark.parametrize(
        "page",
        [
            "index.html",  # the README
            "data/import.html",  # of docs
            "reports/paper/index.html",  # of another folder
            "reference/qlib_ext.api.html",
            "gallery/store_and_labels.py.html",
            "workflows/mimstocr_csi300.yaml.html",  # source text that a page links to
            "pictures/report_summary.png",
        ],
    )
    def test_pages_lie_where_they_should(self, site: Path, page: str) -> None:
        assert (site / page).is_file()

    def test_a_link_to_source_text_leads_to_its_page(self, site: Path) -> None:
        assert 'href="workflows/mimstocr_csi300.yaml.html"' in (site / "workflows.html").read_text("utf-8")

    def test_nothing_is_loaded_from_elsewhere(self, site: Path) -> None:
        loaded = {
            a or b
            for page in site.rglob("*.html")
            for a, b in LOADED.findall(page.read_text(encoding="utf-8"))
        }
        assert len(loaded) > 20
        assert not [address for address in loaded if "//" in address]

    def test_llms_txt_leads_to_the_pages(self, site: Path) -> None:
        targets = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text(encoding="utf-8"))
        assert len(targets) > 60
        assert not [target for target in targets if not (site / target).is_file()]
