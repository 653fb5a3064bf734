from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.finding import Finding, Kind, QualityReport
from qlib_ext.report.document import Document
from qlib_ext.report.sections import quality as section
from qlib_ext.tracking.artifacts import RunArtifacts

KINDS = (
    Kind("jump", "warning", "a price jumps", "a split was missed"),
    Kind("gap", "error", "a day is missing", "returns span two days", "adds the day"),
    Kind("short", "note", "history is short", "few samples"),
    Kind("never", "error", "the sky falls", "it is the end"),
)
JUMP = Finding(
    "jump",
    "warning",
    "SH600000 2015-06-15: up by 30%",
    "features/sh600000/close.day.bin",
    "SH600000",
    "2015-06-15",
)
GAP = Finding(
    "gap", "error", "3 days are missing", "calendars/day.txt", None, "2012-01-04", 3, "adds the day"
)
SHORT = Finding("short", "note", "500 days", None, None, None, 500)


WITH_ERRORS = (
    "Of 4 kinds of fault, 3 were found: 2 errors, 1 warning and 1 note. An error means that figures which rest on what "
    "it names are wrong."
)


def made(*findings: Finding) -> QualityReport:
    return QualityReport(findings, KINDS, {"root": "cn", "days": 2674})


def rendered(folder: Path, audit: QualityReport, **arguments: int) -> str:
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "quality.json").write_text(json.dumps(audit.to_json()))
    return Document([section.Quality(**arguments)]).render(RunArtifacts(folder))


class TestVerdict:
    @pytest.mark.parametrize(
        ("findings", "sentence"),
        [
            ((), "Nothing is wrong with the data: none of 4 kinds of fault was found."),
            (
                (GAP, GAP, JUMP, SHORT),
                WITH_ERRORS,
            ),
            (
                (JUMP, JUMP),
                "Of 4 kinds of fault, 1 was found: 2 warnings. There is no error; a person should look at the warnings.",
            ),
            ((SHORT,), "Of 4 kinds of fault, 1 was found: 1 note. Nothing in them is wrong."),
        ],
    )
    def test_sentences(self, findings: Sequence[Finding], sentence: str, tmp_path: Path) -> None:
        assert section.in_short(made(*findings)) == sentence
        assert f"<p>{sentence}</p>" in rendered(tmp_path, made(*findings))


def rows(page: str) -> Iterator[list[str]]:
    """The cells of each row of the page's tables."""
    for row in re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", page):
        yield re.findall(r">([^<]*)</t[hd]>", row)


class TestTables:
    def test_kinds_worst_first_with_their_counts(self, tmp_path: Path) -> None:
        page = rendered(tmp_path, made(GAP, JUMP, JUMP, SHORT))
        assert (
            '<th scope="row">a day is missing</th><td data-label="Severity">error</td>'
            '<td class="number" data-label="Findings">1</td>'
            '<td data-label="Why it matters">returns span two days</td>'
            '<td data-label="What --fix does">adds the day</td>' in page
        )
        assert [*rows(page)][1][:3] == ["a price jumps", "warning", "2"]
        assert page.index("a day is missing") < page.index("a price jumps") < page.index("history is short")
        assert "the sky falls" not in page

    def test_findings_say_kind_where_when_what_and_how_many(self, tmp_path: Path) -> None:
        found = [*rows(rendered(tmp_path, made(GAP, JUMP, SHORT)))]
        assert ["jump", "warning", "SH600000", "2015-06-15", "up by 30%", "1"] in found
        assert ["gap", "error", "calendars/day.txt", "2012-01-04", "3 days are missing", "3"] in found
        assert found[-1][2:] == ["–", "–", "500 days", "500"]

    def test_what_is_left_out_is_said(self, tmp_path: Path) -> None:
        many = [replace(JUMP, message=f"jump number {k}.") for k in range(30)]
        page = rendered(tmp_path, made(GAP, *many), most=10)
        assert "jump number 8." in page
        assert "jump number 9." not in page
        assert (
            "The first 10 findings of 31, errors first; the other 21 stand in the artifact data/quality.json"
            in page
        )
        assert "errors first" not in rendered(tmp_path, made(GAP, *many), most=31)

    def test_large_numbers_first(self, tmp_path: Path) -> None:
        page = rendered(tmp_path, made(GAP, JUMP, JUMP))
        for name, count in (("Errors", 1), ("Warnings", 2), ("Notes", 0)):
            assert f"<dt>{name}</dt><dd>{count}</dd>" in page

    def test_what_it_was_narrowed_to_is_said(self, tmp_path: Path) -> None:
        narrowed = replace(made(GAP), store={"universe": "csi300", "benchmark": "SH000300"})
        assert "what all stocks share, and csi300 and SH000300." in rendered(tmp_path, narrowed)
        assert "Looked at for this run" not in rendered(tmp_path, made(GAP))

    def test_text_stays_text(self, tmp_path: Path) -> None:
        evil = "<script>alert('x')</script>"
        kinds = tuple(replace(kind, what=evil, why=evil, fix=evil) for kind in KINDS)
        finding = Finding("gap", "error", evil, evil, evil, evil)
        page = rendered(tmp_path, QualityReport((finding,), kinds, {}))
        assert "<script" not in page
        assert page.count("&lt;script&gt;") == 6


class TestPage:
    def test_it_is_one_page_with_every_finding(self) -> None:
        many = [replace(JUMP, message=f"jump number {k}.") for k in range(200)]
        page = section.audit_page(made(*many), "Audit of <cn>")
        assert page.startswith("<!DOCTYPE html>")
        assert "<h1>Audit of &lt;cn&gt;</h1>" in page
        assert all(f"jump number {k}." in page for k in range(200))


class TestRefusals:
    def test_without_the_artifact(self, tmp_path: Path) -> None:
        run = RunArtifacts(tmp_path, makers={"data/quality.json": "some.QualityRecord"})
        with pytest.raises(UserError, match=r"`data/quality.json`, written by some.QualityRecord"):
            Document([section.Quality()]).render(run)

    def test_none_to_list(self) -> None:
        with pytest.raises(UserError, match="`most` must be at least 1, found 0"):
            section.Quality(most=0)
