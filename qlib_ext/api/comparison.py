"""Runs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from qlib_ext.api import start
from qlib_ext.api.report import Report
from qlib_ext.api.run import Run
from qlib_ext.checks import UserError

if TYPE_CHECKING:
    from qlib_ext.report.comparison.compared import Comparison as Compared


class Comparison:
    """Runs grouped by what differs, with means over seeds and tests against a baseline.

    In a notebook it shows the groups, the tests and what they say. Made by `compare`.

    Attributes
    ----------
    groups
        A row a group: its mean metrics, and their deviations over runs.
    runs
        A row a run.
    tests
        A row a measure and group: its difference to the baseline, with interval and p.
    configuration
        Settings that differ: a row a setting, a column a group.
    left_out
        Runs that were asked for and are not compared -> why.
    """

    def __init__(self, compared: Compared, wanted: Sequence[str], store: str, by: Sequence[str]) -> None:
        self._compared, self._wanted, self._store, self._by = compared, wanted, store, by
        self.groups: pd.DataFrame = compared.summary
        self.runs: pd.DataFrame = compared.runs
        self.tests: pd.DataFrame = compared.tests
        self.configuration: pd.DataFrame = compared.configuration
        self.left_out: dict[str, str] = {each.name: each.why for each in compared.left_out}

    def __repr__(self) -> str:
        return f"Comparison({', '.join(group.name for group in self._compared.groups)})"

    def report(self, out: str | Path | None = None) -> Report:
        """Write the page and the tables, as `qlib-ext compare` does; by default below `reports/comparisons`."""
        from qlib_ext.paths import writable
        from qlib_ext.report.comparison import files

        place = None if out is None else Path(out)
        folder = place or files.folder_of(self._wanted)
        writable(folder, name="`out`", way_out="name another")
        page = files.page_of(self._compared, self._wanted, self._store, by=self._by, out=place)
        return Report(files.write(folder, page, self._compared)[0])

    def _repr_html_(self) -> str:
        from qlib_ext.report import html
        from qlib_ext.report.comparison.compared import TESTED
        from qlib_ext.report.comparison.words import SHORT, SHOWN, claims, group_rows, metrics, rows_of_tests

        found = self._compared
        wanted = metrics(found, SHORT)
        rows = group_rows(found, wanted)
        parts = [
            f"<p><b>{html.text(found.synthetic)}</b></p>" if found.synthetic else "",
            html.table(
                ["Group", "Runs", *(SHOWN[name][0] for name in wanted)],
                rows,
                numbers=range(1, len(wanted) + 2),
            ),
        ]
        for measure, name in TESTED.items():
            tests = [(row[0], row[1], row[2], row[5], row[7]) for row in rows_of_tests(found, measure)]
            if tests:
                header = [
                    f"{name}, against {found.baseline.name}",
                    "Difference",
                    "95% interval",
                    "p, Holm",
                    "In the set",
                ]
                parts.append(html.table(header, tests, numbers=range(1, 5)))
        said = [*(f"{claim.said} {claim.because}" for claim in claims(found)), *found.warnings]
        said += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        return "".join([*parts, html.items(said) if said else ""])


def compare(
    runs: Sequence[str | Run] | str,
    *,
    baseline: str | Run | None = None,
    by: Sequence[str] = (),
    tracking_uri: str | None = None,
) -> Comparison:
    """Compare runs: what `qlib-ext compare` does.

    Parameters
    ----------
    runs
        Runs, or what names some: an experiment for all of its finished runs, a name, an id.
    baseline
        Group to test the others against, by its name, a part of it or a run in it; that of the first run by default.
    by
        Parameters or tags to group by, instead of all that differ.
    tracking_uri
        MLflow's store, from here on in this session. Without it the store that has the first `Run` of those given.

    Raises
    ------
    UserError
        If a run is not found, or none can be compared.

    Examples
    --------
    >>> compare(["tiny"]).groups.index.name
    'group'
    """
    from qlib_ext.report.comparison import runs as reading
    from qlib_ext.report.comparison.compared import compare as compared
    from qlib_ext.tracking.runs import find_runs

    given = [runs] if isinstance(runs, str) else [*runs]
    if not given:
        raise UserError("`runs` must name at least one run, found none")
    wanted = [each if isinstance(each, str) else each.id for each in given]
    opened = [each.client for each in given if isinstance(each, Run)]
    client = opened[0] if opened and tracking_uri is None else start.client_of(tracking_uri)
    found, left_out = reading.read(client, find_runs(client, wanted, finished=False))
    first = baseline if baseline is None or isinstance(baseline, str) else baseline.id
    return Comparison(compared(found, left_out, baseline=first, by=by), wanted, client.tracking_uri, by)
