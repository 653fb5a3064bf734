"""The report in Chinese: no heading, label or verdict without its words, and nothing else changed."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.report import headline, standard, verdict
from qlib_ext.report.comparison import words
from qlib_ext.report.document import Document
from qlib_ext.report.language import ENGLISH, Language, language, languages
from qlib_ext.report.page import FOOTER, NOSCRIPT, OF_SCRIPT, Part, page

REPORT = Path(headline.__file__).parent
ZH = language("zh")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# What a Chinese reader knows by the same letters, what is a name, and what is put together (tested below).
SAME = re.compile(
    r"Rank ?ICIR|ICIR|QLIKE|F1|\d+%|RETURN|NEXT_RETURN|[a-z_/{}]*|\{\} \(\{\}\)|\{\} is \{\}\.\{\}\{\}"
)
STANDING_FOR = ("5", "the index", "5 days", "2017-01-04", "RETURN")
# Function or class -> which of its arguments are texts that a reader sees as heading, label or verdict.
SHOWN = {f"html.{name}": 0 for name in ("heading", "details", "box", "table", "large_figures")}
SHOWN |= {"Part": 0, "Claim": 1, "Row": 0, "Group": 0, "percent_row": 0, "number_row": 0}


def is_told(english: str) -> bool:
    """Whether the catalogue has a text, whatever stands for its `{}`."""
    return any(
        CHINESE.search(ZH.text(english.replace("{}", said))) or SAME.fullmatch(english)
        for said in STANDING_FOR
    )


def texts(node: ast.AST) -> Iterator[str]:
    """The texts of an expression, those of calls in it apart."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)  # type: ignore[misc]
    elif isinstance(node, ast.IfExp):
        yield from (*texts(node.body), *texts(node.orelse))
    elif not isinstance(node, (ast.Call, ast.Subscript, ast.Compare, ast.Attribute)):
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def seen_in(source: str) -> Iterator[str]:
    """What a reader sees as heading, label or verdict of what a module makes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            place = SHOWN.get(ast.unparse(node.func))
            if place is not None and len(node.args) > place:
                yield from texts(node.args[place])
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("title", "answers", "header"):
            yield from texts(node.value)


class TestCatalogue:
    @pytest.mark.parametrize(
        "module",
        [
            *sorted((REPORT / "sections").glob("*.py")),
            REPORT / "verdict.py",
            REPORT / "headline.py",
            *((REPORT / "comparison") / name for name in ("document.py", "words.py")),
        ],
        ids=lambda path: path.stem,
    )
    def test_it_has_every_heading_label_and_verdict(self, module: Path) -> None:
        missing = [each for each in seen_in(module.read_text("utf-8")) if not is_told(each)]
        assert missing == [], f"qlib_ext/report/languages/zh.yaml lacks them, which {module.name} shows"

    def test_it_has_the_figures_of_a_comparison(self) -> None:
        names = {name for name, _, _ in words.SHOWN.values()}
        assert [name for name in names if not is_told(name)] == []

    def test_it_has_what_the_page_says_itself(self) -> None:
        for english in (FOOTER, NOSCRIPT, "Contents", *OF_SCRIPT):
            assert CHINESE.search(ZH.text(english)), english
            if english in OF_SCRIPT:
                assert f'"{english}"' in (REPORT / "page.js").read_text("utf-8")

    def test_each_entry_keeps_what_stands_in_it(self) -> None:
        for english, other in ZH.texts.items():
            count = len(re.findall(r"\{n?\}", english))
            parts = [f"<{k}>" for k in range(count)]
            assert all(part in other.format(*parts) for part in parts), english
            assert "{n}" not in other

    def test_the_reader_above_sees_a_section_without(self) -> None:
        source = 'class New:\n    title = "Planted"\n    def render(self):\n        return html.heading(f"Of {x} planted")'
        assert [*seen_in(source)] == ["Planted", "Of {} planted"]
        assert not is_told("Planted")
        assert not is_told("Of {} planted")


class TestVerdict:
    def test_every_answer_and_its_reasons_are_told(self, made: Any) -> None:
        """Each figure above zero, below it, about it, and without an interval; one benchmark and more."""
        run = made.view()
        known = headline.estimates(run)
        cost = "benchmarks/equal_weight/annualised_excess_return"
        more = {
            cost: known["backtest/annualised_excess_return"],
            f"{cost}_without_cost": known["backtest/annualised_excess_return_without_cost"],
        }
        alone = {
            name: each for name, each in known.items() if not name.startswith("backtest/annualised_excess")
        }
        ends = [(0.01, 0.05), (-0.05, -0.01), (-0.01, 0.05), (float("nan"), float("nan"))]
        for estimates in (known, {**known, **more}, alone):
            for low, high in ends:
                changed = {name: replace(each, low=low, high=high) for name, each in estimates.items()}
                for claim in verdict.claims(run, changed):
                    for english in (claim.said, claim.because):
                        other = ZH.text(english.strip())
                        assert CHINESE.search(other), english
                        left = re.sub(r"RankIC|RETURN|pp|`[^`]*`", "", other)
                        assert not re.search(r"[A-Za-z]{2}", left), other

    @pytest.mark.parametrize(
        "english",
        [
            "RankIC is higher than that of EW: CQB (+0.0123); DB (+0.0100).",
            "Return a day, after cost is lower than that of EW: CQB (−1.20 bps).",
            "IC is higher than that of EW: A (+0.0123). It is lower than that of EW: B (−0.0100).",
            "IC is higher than that of EW: A (+0.0123). This is of one training of a method, and says nothing of other seeds.",
            "IC is lower than that of EW: A (−0.01). This is of 2 trainings of a method, and says nothing of other seeds.",
            "IC is lower than that of EW: A (−0.01). Other seeds may turn it: with trainings drawn too, an interval includes zero.",
            "Of 3 comparisons, p below 0.05 after Holm's correction; SPA p that no group is better than EW: < 0.001.",
            "Return a day, after cost: no group differs from EW by more than chance may bring.",
            "Smallest p after Holm's correction of 2 comparisons: 0.120; SPA p that no group is better than EW: 0.300.",
            "3 runs are too few to say whether the best would be so on other days.",
            "The best excess return over the index is more than the luck of 5 trials.",
            "The best excess return over the index may be the luck of 1 trial.",
            "None of 5 trials earned more than the index, after cost.",
            (
                "A has an information ratio of 1.20 a year, after cost; the best of 5 without any skill is expected to have 0.80; "
                "deflated Sharpe ratio 0.970, which is the probability that the true ratio is positive. Trials are the 3 runs compared "
                "and 2 more that the ledger of trials has of these test days."
            ),
        ],
    )
    def test_so_is_what_a_comparison_puts_together(self, english: str) -> None:
        left = re.sub(r"RankIC|IC|SPA|Holm|EW|CQB|DB|bps|A|B", "", ZH.text(english))
        assert CHINESE.search(left)
        assert not re.search(r"[A-Za-z]{2}", left), left


class TestPage:
    @pytest.fixture(scope="class")
    def pages(self, made: Any) -> tuple[str, str]:
        """A run's page in both languages."""
        run = made.view(left_out=())
        there = {path for path in Document(standard.sections()).reads if run.has(path)}
        document = Document(standard.fed(standard.sections(), there)[0])
        return document.render(run), document.render(run, ZH)

    def test_what_a_reader_looks_for_is_chinese(self, pages: tuple[str, str]) -> None:
        _, other = pages
        assert '<html lang="zh-Hans">' in other
        found = re.findall(r"<(h[23]|dt|strong)\b[^>]*>([^<]+)<", other)
        found += re.findall(r'<(th) scope="col"[^>]*>([^<]+)<', other)
        found += re.findall(r'<(span) class="answers">([^<]+)<', other)
        found += re.findall(r'<(a) href="#[^"]*">([^<]+)<', other)
        found += re.findall(r"<(summary)>([^<]+)<", other)
        assert len(found) > 100
        english = [html.unescape(text) for _, text in found if not CHINESE.search(text)]
        assert [text for text in english if not SAME.fullmatch(text)] == []

    def test_numbers_scripts_charts_and_addresses_are_the_same(self, pages: tuple[str, str]) -> None:
        for pattern in (
            r'<td class="number[^>]*>([^<]+)<',
            r'<script type="application/json"[^>]*>(.*?)</script>',
            r"<button[^>]*>(.*?)</button>",
            r'<section id="([^"]+)"',
            r"<pre>(.*?)</pre>",
        ):
            of_english, of_other = (re.findall(pattern, each, flags=re.DOTALL) for each in pages)
            assert of_english, pattern
            known = {ZH.text(html.unescape(each), strict=True) for each in of_english}
            assert {html.unescape(each) for each in of_other} <= known | {*map(html.unescape, of_english)}

    def test_the_policy_lets_its_own_script_run(self, pages: tuple[str, str]) -> None:
        from qlib_ext.report.interactive import hash_of

        for each in pages:
            (own,) = re.findall(r"<script>(// Unfolds.*?)</script>", each, flags=re.DOTALL)
            assert html.escape(hash_of(own.encode())) in each

    def test_the_english_page_is_that_of_before(self) -> None:
        parts = [Part("Summary", "<p>Contents</p>"), Part("Trades", "<p>a &lt; b</p>")]
        assert page("t", "s", parts, ENGLISH) == page("t", "s", parts)
        assert "font-family: ;" not in page("t", "s", parts)


class TestLanguage:
    MADE = Language("zz", {"Trades": "T", "{} of {n}": "<{1}|{0}>", "{} beside the traded amount": "[{}]"})

    @pytest.mark.parametrize(
        ("fragment", "expected"),
        [
            ("<h2>Trades</h2>", "<h2>T</h2>"),
            ("<td>Trades of 5%</td>", "<td>&lt;5%|T&gt;</td>"),
            ("<td>Bank of 5</td>", "<td>Bank of 5</td>"),  # a name of the user's
            ("<p>What is &lt; it beside the traded amount</p>", "<p>[What is &lt; it]</p>"),
            ("<td>A&amp;B beside the traded amount</td>", "<td>A&amp;B beside the traded amount</td>"),
            ('<td data-label="Trades">x</td>', '<td data-label="T">x</td>'),
            ("<script>Trades</script><pre>Trades</pre>", "<script>Trades</script><pre>Trades</pre>"),
            ("<button>Trades</button>", "<button>Trades</button>"),
            ("<p><br>Trades</p> Trades", "<p><br>T</p> T"),
        ],
    )
    def test_a_fragment(self, fragment: str, expected: str) -> None:
        assert self.MADE.html(fragment) == expected
        assert ENGLISH.html(fragment) == fragment

    def test_a_paragraph_is_told_whole_or_not_at_all(self) -> None:
        made = Language("zz", {"One.": "1.", "Two.": "2."})
        assert made.text("One. Two.") == "1.2."
        assert made.text("One. Three.") == "One. Three."

    def test_another_is_refused(self) -> None:
        assert languages() == ["en", "zh"]
        assert language("en") is ENGLISH
        with pytest.raises(UserError, match=r"`lang` must be one of en, zh, found 'fr'"):
            language("fr")
