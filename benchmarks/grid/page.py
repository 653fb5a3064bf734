"""One content, written as Markdown with pictures beside it and as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from qlib_ext.report import figures, html

WIDER = "body { max-width: 76rem; } table { font-size: .8125rem; }"
"""What a page of a grid adds to the style of reports: its tables have ten columns and more."""


@dataclass
class Page:
    """Headings, paragraphs, tables and figures in their order.

    Attributes
    ----------
    title
        Of the page.
    blocks
        `(kind, content...)` as the methods below leave them.
    """

    title: str
    blocks: list[tuple[Any, ...]] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """A heading."""
        self.blocks.append(("heading", text))

    def text(self, text: str) -> None:
        """A paragraph of plain text."""
        self.blocks.append(("text", text))

    def code(self, text: str) -> None:
        """Lines as they are, such as a command."""
        self.blocks.append(("code", text))

    def items(self, texts: Sequence[str]) -> None:
        """A list."""
        self.blocks.append(("items", [*texts]))

    def table(self, name: str, table: pd.DataFrame, left: int = 1) -> None:
        """A table of texts, also written to `<name>.csv`; the first `left` columns are names."""
        self.blocks.append(("table", name, table, left))

    def figure(self, name: str, figure: Figure, caption: str) -> None:
        """A picture, also written to `<name>.png`."""
        self.blocks.append(("figure", name, figure, caption))

    def write(self, folder: Path, *, as_html: bool = True, dpi: int = 150) -> list[Path]:
        """Write README.md, index.html where it is asked for, and every table and picture; returns what was written."""
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / "README.md"]
        written[0].write_text(self._markdown(), encoding="utf-8")
        if as_html:
            written.append(folder / "index.html")
            written[1].write_text(self._html(), encoding="utf-8")
        for kind, *content in self.blocks:
            if kind == "table":
                written.append(folder / f"{content[0]}.csv")
                content[1].to_csv(written[-1], index=False)
            elif kind == "figure":
                written.append(folder / f"{content[0]}.png")
                written[-1].write_bytes(figures.to_png(content[1], dpi))
        return written

    def _markdown(self) -> str:
        parts = [f"# {self.title}"]
        for kind, *content in self.blocks:
            if kind == "heading":
                parts.append(f"## {content[0]}")
            elif kind == "text":
                parts.append(content[0])
            elif kind == "code":
                parts.append(f"```sh\n{content[0]}\n```")
            elif kind == "items":
                parts.append("\n".join(f"- {text}" for text in content[0]))
            elif kind == "table":
                parts.append(_markdown_table(content[1], content[2]))
            else:
                parts.append(f"![{content[2]}]({content[0]}.png)\n\n{content[2]}")
        return "\n\n".join(parts) + "\n"

    def _html(self) -> str:
        parts = []
        for kind, *content in self.blocks:
            if kind == "heading":
                parts.append(f"<h2>{html.text(content[0])}</h2>")
            elif kind == "text":
                parts.append(html.paragraph(content[0]))
            elif kind == "code":
                parts.append(html.preformatted(content[0]))
            elif kind == "items":
                parts.append(html.items(content[0]))
            elif kind == "table":
                _, table, left = content
                rows = [[*row] for row in table.itertuples(index=False)]
                parts.append(html.table([*table.columns], rows, numbers=range(left, table.shape[1])))
            else:
                parts.append(
                    html.picture(figures.to_data_uri(content[1]), alt=content[2], caption=content[2])
                )
        style = resources.files("qlib_ext.report").joinpath("style.css").read_text(encoding="utf-8")
        style += WIDER
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{html.text(self.title)}</title><link rel="icon" href="data:,"><style>{style}</style></head>\n'
            f"<body><header><h1>{html.text(self.title)}</h1></header><main><section>{''.join(parts)}</section></main>"
            "</body></html>\n"
        )


def _markdown_table(table: pd.DataFrame, left: int) -> str:
    def row(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    line = "|" + "|".join("---" if k < left else "---:" for k in range(table.shape[1])) + "|"
    return "\n".join([row([*table.columns]), line, *(row(cells) for cells in table.itertuples(index=False))])
