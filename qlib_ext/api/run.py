"""A run on MLflow, opened to read."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from qlib_ext.api import start
from qlib_ext.api.keywords import check_keywords, keywords_of
from qlib_ext.api.report import Report
from qlib_ext.api.trading import portfolio_of, trade_run
from qlib_ext.checks import UserError, nearest

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from qlib_ext.market.store import QlibStore
    from qlib_ext.recommend.recommendation import Recommendation
    from qlib_ext.tracking.artifacts import RunArtifacts

SUFFIXES = (".parquet", ".csv")
FILES = ("current", "scores", "memory")  # that a recommendation reads
PREDICTIONS, LABELS = "signal/predictions", "signal/labels"


class UnknownTableError(UserError, KeyError):
    """A table that a run does not have."""

    __str__ = UserError.__str__


class Tables(Mapping[str, pd.DataFrame]):
    """The tables of a run by their names, such as `backtest/daily`; each is read when it is asked for.

    Parameters
    ----------
    run
        Whose.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._read: dict[str, pd.DataFrame] = {}

    @functools.cached_property
    def paths(self) -> dict[str, str]:
        """Name -> artifact path; of two of one name the Parquet."""
        every = sorted(self._run.files(), key=lambda path: path.endswith(".csv"))
        found: dict[str, str] = {}
        for path in every:
            if path.endswith(SUFFIXES):
                found.setdefault(path.rpartition(".")[0], path)
        return dict(sorted(found.items()))

    def __getitem__(self, name: str) -> pd.DataFrame:
        plain = name.removesuffix(".parquet").removesuffix(".csv")
        if plain not in self.paths:
            raise UnknownTableError(
                f"the run {self._run.name} has no table `{name}`{nearest(plain, self.paths)}; it has {', '.join(self.paths)}"
            )
        if plain not in self._read:
            path = self.paths[plain]
            self._read[plain] = self._run.fetch([path]).table(path)
        return self._read[plain].copy()

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"Tables({', '.join(self.paths)})"

    def _ipython_key_completions_(self) -> list[str]:
        return [*self.paths]


class Run:
    """A run on MLflow: its figures, its tables and its report, and what can be done with its scores.

    In a notebook it shows its verdict and its headline figures.

    Parameters
    ----------
    run
        Its id, the first digits of it, its name, or an experiment, which stands for its newest finished run.
    tracking_uri
        MLflow's store, from here on in this session; by default the environment's MLFLOW_TRACKING_URI, or
        `sqlite:///mlflow.db` in the working directory.

    Attributes
    ----------
    id, name, experiment, status
        As MLflow has them.
    client
        Of the store that has it, wherever the session writes in the meantime.
    metrics, params, tags
        By name.
    tables
        The tables of its artifacts, by name.

    Raises
    ------
    UserError
        If there is no such store or run, or several are meant.

    Examples
    --------
    >>> run = Run("tiny")
    >>> run.status
    'FINISHED'
    >>> run.scores.index.names
    FrozenList(['datetime', 'instrument'])
    >>> run.tables["backtest/daily"].columns.tolist()
    ['return', 'cost', 'benchmark', 'turnover', 'account', 'value', 'cash']
    """

    def __init__(self, run: str, *, tracking_uri: str | None = None) -> None:
        self._open(start.client_of(tracking_uri), run)

    @classmethod
    def at(cls, client: MlflowClient, run: str) -> Run:
        """A run on a store of MLflow that need not be that of the session."""
        made = cls.__new__(cls)
        made._open(client, run)
        return made

    def _open(self, client: MlflowClient, run: str) -> None:
        from qlib_ext.tracking.runs import find_run

        self.client = client
        self._run = find_run(client, run)
        self._folders: list[tempfile.TemporaryDirectory[str]] = []  # for as long as this object is there
        info = self._run.info
        self.id: str = info.run_id
        self.name: str = info.run_name
        self.status: str = info.status
        self.experiment: str = client.get_experiment(info.experiment_id).name
        self.metrics: dict[str, float] = dict(self._run.data.metrics)
        self.params: dict[str, str] = dict(self._run.data.params)
        self.tags: dict[str, str] = {
            key: value for key, value in self._run.data.tags.items() if not key.startswith("mlflow.")
        }
        self.tables = Tables(self)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    @property
    def predictions(self) -> pd.DataFrame:
        """All that the model predicted of the test days, indexed (datetime, instrument); `score` first."""
        return self.tables[PREDICTIONS]

    @property
    def scores(self) -> pd.Series:
        """The scores of the test days, indexed (datetime, instrument)."""
        return self.predictions["score"]

    @property
    def labels(self) -> pd.DataFrame:
        """The labels of the test days, as they were before training saw them; a column a label."""
        return self.tables[LABELS]

    def table(self, name: str) -> pd.DataFrame:
        """A table of its artifacts: `tables[name]`."""
        return self.tables[name]

    def report(self, out: str | Path | None = None, *, figures: bool = False, lang: str = "en") -> Report:
        """The report, made again from the run's artifacts: what `qlib-ext report` does.

        Parameters
        ----------
        out
            Folder for report.html; by default `reports/runs/<experiment>-<id>`.
        figures
            Whether every chart is written as PNG too, into `figures` beside it.
        lang
            `en`, or `zh` for headings, labels and verdict in Chinese, as report.zh.html.

        Raises
        ------
        UserError
            If the run has no artifacts that a section is made of, or the language is unknown.
        """
        start.start()
        from qlib_ext.records.makers import makers
        from qlib_ext.report.standard import write_report

        place = None if out is None else Path(out)
        written = write_report(self.client, self._run, place, figures=figures, lang=lang, makers=makers())
        return Report(written.path, written.left_out)

    def backtest(
        self,
        store: str | Path | QlibStore | None = None,
        *,
        strategy: Any = None,
        backtest: Mapping[str, Any] | None = None,
        topk: int | None = None,
        n_drop: int | None = None,
        name: str | None = None,
    ) -> Run:
        """Trade its scores again, with another strategy; arguments as `qlib_ext.api.backtest` takes them.

        The new run lies beside this one, on the same store of MLflow.
        """
        start.start()
        from qlib_ext.tracking.runs import place_kept

        root = None if store is None else start.store_at(store).root
        portfolio = portfolio_of(strategy, backtest)
        with place_kept(self.client.tracking_uri):
            made = trade_run(self.id, portfolio, topk=topk, n_drop=n_drop, store=root, name=name)
        return Run.at(self.client, made)

    def recommend(
        self, store: str | Path | QlibStore | None = None, date: str | None = None, **given: Any
    ) -> Recommendation:
        """Score a day, by default the store's newest, and list its stocks: what `qlib-ext recommend` does.

        Parameters
        ----------
        store
            The market; by default that of the run's data.
        date
            The day.
        given
            `current`, `cash`, `scores` and what else `qlib_ext.recommend.recommendation.recommend` takes; files by their path.

        Returns
        -------
        `listed` is the table of the day; `orders` those of the next, where an account was given.

        Raises
        ------
        UserError
            Of a keyword that is not known, and of what does not fit.
        """
        start.start()
        from qlib_ext.recommend.recommendation import recommend

        known = keywords_of(Run.recommend, recommend) - {"self", "client", "wanted", "store_path"}
        check_keywords("`recommend`", given, known)
        files = {key: _file(key, given[key]) for key in FILES if given.get(key) is not None}
        root = None if store is None else start.store_at(store).root
        return recommend(self.client, self.id, root, date=date, **{**given, **files})

    def files(self) -> list[str]:
        """Paths of all its artifacts."""
        found: list[str] = []
        waiting: list[str | None] = [None]
        while waiting:
            for item in self.client.list_artifacts(self.id, waiting.pop()):
                (waiting if item.is_dir else found).append(item.path)
        return sorted(found)

    def fetch(self, paths: list[str]) -> RunArtifacts:
        """Artifacts as files on this machine, for as long as this object is there; damage to them is told."""
        from qlib_ext.tracking.artifacts import RunArtifacts

        folder = tempfile.TemporaryDirectory(prefix="qlib-ext-run-")
        self._folders.append(folder)
        return RunArtifacts.download(self.client, self.id, paths, Path(folder.name))

    def _repr_html_(self) -> str:
        from qlib_ext.report import headline, html, verdict
        from qlib_ext.tracking.artifacts import stored

        there = stored(self.client, self.id, [*headline.REQUIRES, *headline.OPTIONAL, *verdict.OPTIONAL])
        title = f"<b>{html.text(self.name)}</b> {html.text(f'{self.status}, {self.id}')}"
        if not {*headline.REQUIRES} <= {*there}:
            shown = html.table(["Metric", "Value"], sorted(self.metrics.items()), numbers=[1])
            return f"<p>{title}</p>{shown}"
        run = self.fetch(there)
        known = headline.estimates(run)
        claims = html.items(f"{claim.said} {claim.because}" for claim in verdict.claims(run, known))
        tables = "".join(
            f"<p><b>{html.text(group.title)}</b></p>"
            + html.table(
                ["Measure", "Value", "95% interval", "Beside it"],
                [[row.name, row.value, row.interval, row.beside] for row in group.rows],
                numbers=[1, 2],
            )
            for group in headline.groups(run, known)
        )
        synthetic = f"<p><b>{html.text(said)}</b></p>" if (said := verdict.synthetic(run)) else ""
        return f"<p>{title}</p>{synthetic}{claims}{tables}"


def _file(name: str, value: Any) -> Path:
    if not isinstance(value, (str, Path)):
        raise UserError(f"`{name}` must be the path of a file, found {type(value).__name__}")
    return Path(value).expanduser()
