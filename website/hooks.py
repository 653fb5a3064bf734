"""Hooks of mkdocs: the repository's pages become those of the site, where they lie and as they are.

A page may link to any file of the repository, as the forge shows it. So the site takes every page of `docs` and of the
navigation, and what these link to: a page as it is, a picture or a table as a file, source text as a page of code. The
navigation may name source text too: a package is then its reference, a notebook of the gallery is run.
"""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from website import diagrams, gallery, llms, navigation

LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".cff": "yaml", ".sh": "sh", "": "text"}
ASSETS = ("site.css", "iframe-worker.js")
CODE = "---\nsearch: {{exclude: true}}\n---\n# {path}\n\n`````{language}\n{text}\n`````\n"
OF_MODULE = "    options: {show_root_heading: true, show_root_full_path: false, show_root_toc_entry: true}\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let the navigation name files that are no Markdown: their pages are named after them."""

    def renamed(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: renamed(value) for key, value in item.items()}
        if isinstance(item, list):
            return [renamed(value) for value in item]
        return item if item.endswith(".md") else f"{item}.md"

    config.nav = renamed(config.nav)
    if (
        "MIKE_DOCS_VERSION" in os.environ
    ):  # by itself the page would look for a list of versions that is not there
        config.extra["version"] = {"provider": "mike", "default": "latest"}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the pages at their paths in the repository."""
    root = Path(config.config_file_path).parent
    asked = {
        path if (root / path).exists() else path.removesuffix(".md") for path in navigation.paths(config.nav)
    }
    asked |= {f"docs/{file.src_uri}" for file in files if file.is_documentation_page()}
    made = [file for file in files if file.src_dir != config.docs_dir]  # the theme's
    made += [File(f"assets/{name}", str(root / "website"), config.site_dir, False) for name in ASSETS]
    with tempfile.TemporaryDirectory() as work:
        made += _pages(asked, root, Path(work), config)
    return Files(made)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to the pages that were made of source text, and put drawings in the place of diagrams."""

    def led(match: re.Match[str]) -> str:
        target = _absolute(match[2], page.file)
        leads_on = target not in files.src_uris and f"{target}.md" in files.src_uris
        return f"{match[1]}{match[2].rstrip('/')}.md{match[3]}" if leads_on else match[0]

    return diagrams.drawn(LINK.sub(led, markdown), page.file.src_uri)


def on_post_build(config: MkDocsConfig) -> None:
    """Leave llms.txt beside the pages, with their addresses on the site."""
    root = Path(config.config_file_path).parent
    (Path(config.site_dir) / "llms.txt").write_text(llms.text(root, _address), encoding="utf-8")


def _pages(asked: set[str], root: Path, work: Path, config: MkDocsConfig) -> Iterator[File]:
    """The files of the paths asked for, and of what these link to."""
    notebooks = {
        path: root / path for path in asked if path.startswith("docs/gallery/") and path.endswith(".py")
    }
    done = {path: gallery.read(place) for path, place in notebooks.items()}
    if config.extra["whole"]:
        run = gallery.run([*notebooks.values()], work)
        done = {path: run[place.stem] for path, place in notebooks.items()}
    waiting, seen = sorted(asked), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if path in done:
            text, beside = gallery.page(done[path], Path(path).stem, work)
            made = [_generated(path, text, config)]
            made += [_generated(f"docs/gallery/{name}", content, config) for name, content in beside.items()]
        else:
            made = [_file(path, root, config)]
        for file in made:
            if path not in asked:
                file.inclusion = InclusionLevel.NOT_IN_NAV
            if path.endswith(".md") or path in asked:
                waiting += _linked(file, root)
        yield from made


def _file(path: str, root: Path, config: MkDocsConfig) -> File:
    """What one file or folder of the repository is on the site."""
    place = root / path
    if place.is_dir():
        listed = "\n".join(f"- [{item.name}]({place.name}/{item.name})" for item in sorted(place.iterdir()))
        return _generated(path, f"# {path}\n\n{listed}\n", config)
    if place.name == "__init__.py":
        return _generated(path, _reference(place.parent, root, whole=config.extra["whole"]), config)
    if place.suffix in LANGUAGES:
        text = place.read_text(encoding="utf-8").rstrip("\n")
        return _generated(path, CODE.format(path=path, language=LANGUAGES[place.suffix], text=text), config)
    return File(path, str(root), config.site_dir, use_directory_urls=False, dest_uri=_address(path))


def _reference(folder: Path, root: Path, *, whole: bool) -> str:
    """The reference of a package: what it exports, or else each of its modules."""
    name = ".".join(folder.relative_to(root).parts)
    if not whole:
        return f"# {name}\n"
    if "__all__" in (folder / "__init__.py").read_text(encoding="utf-8"):
        return f"# {name}\n\n::: {name}\n"
    modules = sorted(file.stem for file in folder.glob("[!_]*.py"))
    parts = "\n".join(f"::: {name}.{module}\n{OF_MODULE}" for module in modules)
    return f"# {name}\n\n{parts}"


def _generated(path: str, content: str | bytes, config: MkDocsConfig) -> File:
    """A file that lies nowhere; text is a page."""
    file = File.generated(config, f"{path}.md" if isinstance(content, str) else path, content=content)
    file.dest_uri = _address(file.src_uri)
    return file


def _linked(file: File, root: Path) -> Iterator[str]:
    """Paths of the repository that a page links to."""
    if not file.is_documentation_page():
        return
    for match in LINK.finditer(file.content_string):
        target = _absolute(match[2], file)
        if (root / target).exists():
            yield target


def _absolute(target: str, file: File) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(file.src_uri), target))


def _address(path: str) -> str:
    """Where a file of the repository lies on the site."""
    place = path.removeprefix("docs/")
    if place.endswith("/__init__.py.md"):
        return f"reference/{posixpath.dirname(place).replace('/', '.')}.html"
    if posixpath.basename(place) == "README.md":
        return posixpath.join(posixpath.dirname(place), "index.html")
    return f"{place.removesuffix('.md')}.html" if place.endswith(".md") else place
