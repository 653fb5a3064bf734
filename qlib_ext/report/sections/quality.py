"""What is wrong with the data, and how much that matters."""

from __future__ import annotations

from qlib_ext.checks import integer
from qlib_ext.market import finding
from qlib_ext.report import html
from qlib_ext.report.page import Part, page
from qlib_ext.report.sections.base import Section
from qlib_ext.tracking.artifacts import RunArtifacts

ARTIFACT = "data/quality.json"
PLURAL = {"error": "errors", "warning": "warnings", "note": "notes"}


class Quality(Section):
    """The audit of the store: a verdict, what kinds of fault were found, and the findings.

    Parameters
    ----------
    most
        Findings to list, errors first; how many are left out is said.

    Raises
    ------
    UserError
        If `most` is below 1.
    """

    title = "Data quality"
    place = 200
    answers = "What is wrong with the data?"
    requires = (ARTIFACT,)

    def __init__(self, most: int = 40):
        self.most = integer("most", most, 1)

    def render(self, run: RunArtifacts) -> str:
        """A sentence, the numbers, a table of kinds and a table of findings."""
        return audited(finding.QualityReport.from_json(run.json(ARTIFACT)), self.most)


def audited(audit: finding.QualityReport, most: int) -> str:
    """The audit as HTML, with up to `most` of its findings."""
    parts = [html.paragraph(in_short(audit)), html.large_figures(_figures(audit))]
    narrowed = [str(audit.store[key]) for key in ("universe", "benchmark") if audit.store.get(key)]
    if narrowed:
        parts.append(
            html.paragraph(
                f"Looked at for this run: what all stocks share, and {' and '.join(narrowed)}. `qlib-ext data check` "
                "looks at the whole store.",
                "note",
            )
        )
    if audit.findings:
        parts += [html.heading("Kinds of fault found"), _kinds(audit), html.heading("Findings")]
        parts += [_findings(audit.findings[:most])]
    hidden = len(audit.findings) - most
    if hidden > 0:
        parts.append(
            html.paragraph(
                f"The first {most:,} findings of {len(audit.findings):,}, errors first; the other {hidden:,} stand "
                f"in the artifact {ARTIFACT}, and `qlib-ext data check` prints them.",
                "note",
            )
        )
    return "".join(parts)


def audit_page(audit: finding.QualityReport, title: str) -> str:
    """The audit alone, as a page of its own that lists up to 1,000 findings."""
    return page(title, "", [Part(Quality.title, audited(audit, 1000))])


def in_short(audit: finding.QualityReport) -> str:
    """The audit in a sentence or two."""
    counts = audit.counts
    if not audit.findings:
        return f"Nothing is wrong with the data: none of {len(audit.kinds)} kinds of fault was found."
    found = len({found.kind for found in audit.findings})
    each = [_counted(count, severity) for severity, count in counts.items() if count]
    said = f"Of {len(audit.kinds)} kinds of fault, {found} {'was' if found == 1 else 'were'} found: "
    said += " and ".join(", ".join(each).rsplit(", ", 1)) + ". "
    if counts["error"]:
        return said + "An error means that figures which rest on what it names are wrong."
    if counts["warning"]:
        return said + "There is no error; a person should look at the warnings."
    return said + "Nothing in them is wrong."


def _counted(count: int, severity: str) -> str:
    return f"{count:,} {severity if count == 1 else PLURAL[severity]}"


def _figures(audit: finding.QualityReport) -> list[tuple[str, str, str]]:
    beside = {
        "error": "results would be wrong",
        "warning": "a person should look",
        "note": "good to know",
    }
    return [
        (PLURAL[severity].capitalize(), html.count(count), beside[severity])
        for severity, count in audit.counts.items()
    ]


def _kinds(audit: finding.QualityReport) -> str:
    """Each kind that was found, worst first."""
    kinds = [(kind, len(audit.of(kind.name))) for kind in audit.kinds]
    kinds.sort(key=lambda pair: finding.SEVERITIES.index(pair[0].severity))
    rows = [
        (kind.what, kind.severity, html.count(count), kind.why, kind.fix or html.NONE)
        for kind, count in kinds
        if count
    ]
    header = ["What is wrong", "Severity", "Findings", "Why it matters", "What --fix does"]
    return html.table(header, rows, numbers=[2])


def _findings(findings: tuple[finding.Finding, ...]) -> str:
    rows = [
        (
            found.kind,
            found.severity,
            found.instrument or found.file or html.NONE,
            found.date or html.NONE,
            _what(found),
            html.count(found.count),
        )
        for found in findings
    ]
    return html.table(["Kind", "Severity", "Where", "When", "What", "How many"], rows, numbers=[3, 5])


def _what(found: finding.Finding) -> str:
    """The message, without the stock and the day that stand beside it."""
    place = " ".join(filter(None, [found.instrument, found.date]))
    return found.message.removeprefix(f"{place}: ")
