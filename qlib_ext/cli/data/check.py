"""`qlib-ext data check`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlib_ext.checks import UserError, counted
from qlib_ext.cli.answer import Answer, exits
from qlib_ext.cli.data.summary import counts
from qlib_ext.terminal import say

if TYPE_CHECKING:
    from qlib_ext.market.finding import Finding, QualityReport
    from qlib_ext.market.quality.repair import Repair

SHOWN = 5  # findings of a kind, in the terminal


@exits({1: "the store has errors: results on it would be wrong"})
def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The store, in Qlib's format.")],
    universe: Annotated[
        str | None, typer.Option(help="Check what a run on this universe sees, and that it is there.")
    ] = None,
    benchmark: Annotated[
        str | None, typer.Option(help="Check that the bars of this code can serve a backtest as its index.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print every finding.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as a page, too.")] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT", help="Write a new store with what is safe to mend; DIR is left as it is."
        ),
    ] = None,
) -> Answer:
    """Look for what is wrong with a store. JSON has every finding."""
    from qlib_ext.market.quality.check import check_store
    from qlib_ext.market.quality.repair import check_out, repair
    from qlib_ext.paths import writable
    from qlib_ext.terminal import shown_progress  # here, so that `qlib-ext --help` stays quick

    if html is not None and not html.absolute().parent.is_dir():
        raise UserError(f"`--html` must be a file in a directory that is there, found `{html}`")
    if html is not None:
        writable(html.absolute().parent, name="the folder of `--html`", way_out="name another")
    if fix is not None:
        check_out(directory, fix)
    began = time.perf_counter()
    with shown_progress() as progress:
        checked = check_store(directory, universe=universe, benchmark=benchmark, progress=progress)
        repaired = None
        if fix is not None:
            repaired = repair(
                directory, fix, checked, universe=universe, benchmark=benchmark, progress=progress
            )
    seconds = time.perf_counter() - began
    last = checked if repaired is None else repaired.after
    most = None if everything else SHOWN
    for line in _lines(checked, most):
        say(line)
    if repaired is not None:
        for line in _fixed(repaired, most):
            say(line)
    say()
    say(f"{counts(last)}; {len(last.kinds)} kinds of fault looked for in {seconds:.1f} s")
    if html is not None:
        from qlib_ext.report.sections.quality import audit_page  # here: it brings MLflow with it

        html.write_text(audit_page(checked, f"Audit of {directory.resolve().name}"), encoding="utf-8")
    document = checked.to_json() if repaired is None else repaired.to_json()
    fixable = {kind.name for kind in checked.kinds if kind.fix} & {each.kind for each in checked.findings}
    then = f"qlib-ext data check {directory} --fix OUT" if fixable and repaired is None else ""
    return Answer(document, int(last.has_errors), then)


def _lines(checked: QualityReport, most: int | None) -> Iterator[str]:
    """The answer for the terminal."""
    store = checked.store
    yield f"{store['root']}: {_facts(checked)}"
    for severity in checked.counts:
        of_severity = [finding for finding in checked.findings if finding.severity == severity]
        if of_severity:
            yield ""
            yield f"{counted(len(of_severity), severity)}"
            yield from _by_kind(of_severity, checked, most)
    if not checked.findings:
        yield ""
        yield "Nothing was found."
    left_out = store.get("left_out")
    if left_out:
        yield ""
        yield f"{counted(left_out, 'finding')} of other stocks left out; without --universe they are listed"


def _facts(checked: QualityReport) -> str:
    store = checked.store
    if not store["days"]:
        return f"{counted(store['instruments'], 'instrument')}, no calendar"
    return (
        f"{counted(store['instruments'], 'instrument')}, {counted(store['days'], 'day')} from {store['first_day']} to "
        f"{store['last_day']}, fields {', '.join(store['fields']) or 'none'}, universes "
        f"{', '.join(store['universes']) or 'none'}"
    )


def _by_kind(findings: list[Finding], checked: QualityReport, most: int | None) -> Iterator[str]:
    kinds = {kind.name: kind for kind in checked.kinds}
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for name, of_kind in by_kind.items():
        yield f"  {name}: {kinds[name].what}. {_sentence(kinds[name].why)}"
        for finding in of_kind[:most]:
            yield f"    {finding.message}"
        if most is not None and len(of_kind) > most:
            yield f"    and {len(of_kind) - most:,} more (--all lists them)"


def _fixed(repaired: Repair, most: int | None) -> Iterator[str]:
    """What was mended, and what was not."""
    yield ""
    yield f"{repaired.out}: a new store"
    for line in repaired.done:
        yield f"  {line}"
    if not repaired.done:
        yield "  nothing was safe to mend: the content is that of the old one"
    kinds = {kind.name: kind for kind in repaired.before.kinds}
    for title, findings, mended in (
        ("mended", repaired.mended, True),
        ("left as it is, or seen only now: a person must decide", repaired.left, False),
    ):
        if findings:
            yield f"  {title}"
        for name in dict.fromkeys(finding.kind for finding in findings):
            of_kind = [finding for finding in findings if finding.kind == name]
            fix = f" ({kinds[name].fix})" if mended and kinds[name].fix else ""
            yield f"    {name}: {counted(len(of_kind), 'finding')}{fix}"
            if most is None:
                yield from (f"      {finding.message}" for finding in of_kind)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
