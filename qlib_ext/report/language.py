"""A page in another language than English: its texts are looked up in a catalogue, and the rest stays as it is.

Sections write English. What they made is translated afterwards, a text between two tags at a time, so that no section knows of
languages and the English page does not change. Headings, labels and verdicts are in the catalogue; explanations may not be, and
stay English whole. Series of charts keep their English names, beside which no font has to be there.
"""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml

from qlib_ext.checks import one_of

NUMBER = r"([−+-]?[\d,.]*\d(?:%| pp| bps)?|–)"
ANY = r"((?:(?!\. [A-Z`]).)+?)"  # within a sentence; where an entry ends by it, all that follows
FEW_LETTERS = 5  # of a pattern: with fewer it says nothing of what stands between them
NO_LETTER = re.compile(r"(?:(?! pp| bps)[^A-Za-z]| pp| bps)*")
SENTENCES = re.compile(r"(?<=[.?!]) (?=[A-Z`])| (?=\N{MIDDLE DOT} )|(?<=\N{MIDDLE DOT}) ")
TOKENS = re.compile(r"(<(script|style|pre|button)\b.*?</\2>|<[^>]*>)", re.DOTALL)
OF_CELLS = ("td", "th", "dd", "dt")  # where names of the user's stand, too
KEPT = ('span class="only"', 'span class="mark"')
ATTRIBUTE = re.compile(r'(data-label|aria-label)="([^"]*)"')


class Language:
    """Texts of one language by the English ones.

    Parameters
    ----------
    tag
        As HTML names the language.
    texts
        English -> the other; `{}` is any text, which is looked up itself, `{n}` a number.
    fonts
        What the style sheet names before what a browser takes by itself; empty for no change.
    """

    def __init__(self, tag: str, texts: Mapping[str, str], fonts: str = ""):
        self.tag, self.texts, self.fonts = tag, dict(texts), fonts
        patterns = [_pattern(english) for english in self.texts if "{" in english]
        self._patterns = sorted(patterns, key=lambda each: -each[1])
        self._looked_up = functools.cache(self._look_up)

    def text(self, english: str, *, strict: bool = False) -> str:
        """A text in this language, or as it is where the catalogue does not have all of it.

        Parameters
        ----------
        english
            A text.
        strict
            Whether what stands for `{}` must be known too, or hold no letter.
        """
        return english if not self.texts else self._looked_up(english, strict) or english

    def _look_up(self, english: str, strict: bool) -> str | None:
        core = english.strip()
        if core in self.texts:
            return english.replace(core, self.texts[core])
        sentences = self._sentences(core, strict)
        if sentences is not None:
            return sentences
        for known, letters, pattern in self._patterns:
            found = pattern.fullmatch(core)
            if found is None:
                continue
            parts = [self._part(part, strict or letters < FEW_LETTERS) for part in found.groups()]
            if None not in parts:
                return self.texts[known].format(*parts)
        return None

    def _sentences(self, core: str, strict: bool) -> str | None:
        """Sentences after each other, of which all must be known; or facts beside each other, of which some are names."""
        pieces = [piece for piece in SENTENCES.split(core) if piece]
        if len(pieces) < 2:
            return None
        made = [piece if piece == "\N{MIDDLE DOT}" else self._looked_up(piece, strict) for piece in pieces]
        if "\N{MIDDLE DOT}" in pieces:
            return " ".join(new or old for new, old in zip(made, pieces, strict=True))
        return None if None in made else "".join(piece for piece in made if piece)

    def _part(self, text: str, strict: bool) -> str | None:
        if NO_LETTER.fullmatch(text):
            return text
        return self._looked_up(text, strict) or (None if strict else text)

    def html(self, fragment: str) -> str:
        """A fragment of HTML, in which what a reader sees is translated and what runs is not."""
        if not self.texts:
            return fragment
        made, open_tags, at = [], [""], 0
        for found in TOKENS.finditer(fragment):
            made.append(self._between(fragment[at : found.start()], open_tags[-1]))
            at, token = found.end(), found[0]
            if found[2] is None:
                token = ATTRIBUTE.sub(self._attribute, token)
                if token.startswith("</"):
                    open_tags.pop()
                elif not token.startswith(("<img", "<br", "<meta", "<link", "<!")):
                    open_tags.append(token[1:-1])
            made.append(token)
        return "".join([*made, self._between(fragment[at:], open_tags[-1])])

    def _between(self, escaped: str, tag: str) -> str:
        if not escaped.strip() or tag.startswith(KEPT):
            return escaped
        english = html.unescape(escaped)
        other = self.text(english, strict=tag.partition(" ")[0] in OF_CELLS)
        return escaped if other == english else html.escape(other, quote=True)

    def _attribute(self, found: re.Match[str]) -> str:
        other = self.text(html.unescape(found[2]), strict=True)
        return f'{found[1]}="{html.escape(other, quote=True)}"'

    def script(self, code: str, words: tuple[str, ...]) -> str:
        """A script in which some texts are those of this language."""
        for word in words:
            code = code.replace(f'"{word}"', json.dumps(self.text(word), ensure_ascii=False))
        return code

    @property
    def style(self) -> str:
        """What the style sheet has beside that of the English page."""
        return f"body {{ font-family: {self.fonts}; }}" if self.fonts else ""


def _pattern(english: str) -> tuple[str, int, re.Pattern[str]]:
    """An entry, how many letters it says, and what it matches."""
    literal = re.sub(r"\{n?\}", "", english)
    made = re.escape(english).replace(r"\{n\}", NUMBER).replace(r"\{\}", ANY)
    made = made.removesuffix(ANY) + "(.+)" if made.endswith(ANY) else made
    return english, sum(mark.isalpha() for mark in literal), re.compile(made, re.DOTALL)


ENGLISH = Language("en", {})


def languages() -> list[str]:
    """The languages that there are, by the names of their catalogues."""
    folder = resources.files("qlib_ext.report") / "languages"
    return sorted(["en", *(each.name.removesuffix(".yaml") for each in folder.iterdir())])


@functools.cache
def language(name: str) -> Language:
    """A language by its name; a UserError where there is none."""
    if one_of("lang", name, languages()) == "en":
        return ENGLISH
    file = resources.files("qlib_ext.report") / "languages" / f"{name}.yaml"
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return Language(found["tag"], found["texts"], found["fonts"])
