"""The scores of one day, and whether the run that is asked would say of the past what it said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from qlib.model.base import Model

from qlib_ext.checks import UserError, brief, counted
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.score_file import read_scores
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.spells import spell_mask
from qlib_ext.market.store import QlibStore
from qlib_ext.model.ensemble.member_scores import combine_tables
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.records.signal import as_predictions

# Segments: the day that is asked for, one that the run has scored itself, and those between the run's last and the day.
DAY, CHECK, PAST = "day", "check", "past"
SAME_RETURN = 1e-5  # two returns closer than this are the same but for rounding
SAME_SCORE = 1e-4  # times the spread of the scores: of the same model on another device
MANY = 0.5


@dataclass
class Scored:
    """A day's scores and what was found out on the way.

    Attributes
    ----------
    day
        The day t at whose close the scores are known.
    predictions
        Indexed by instrument, sorted; `score` first, then what else the model predicts, as in the run.
    panel
        The market, with the universe's members of each day.
    notes
        What a reader should know.
    warnings
        What a reader must look into before trading on the scores.
    past
        Scores of the members on days before, where a file has them or they were asked for, indexed by (`datetime`,
        `instrument`).
    """

    day: pd.Timestamp
    predictions: pd.DataFrame
    panel: MarketPanel
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    past: pd.Series | None = None


def find_day(store: QlibStore, asked: str | None, *, before: bool = False) -> pd.Timestamp:
    """The day asked for, by default the newest of the store, or with `before` the one before that.

    Raises
    ------
    UserError
        If it is no date, beyond the store, or no trading day; the message names the nearest.
    """
    calendar = store.calendar
    if asked is None:
        return calendar[-2 if before and len(calendar) > 1 else -1]
    try:
        day = pd.Timestamp(asked)
    except ValueError as error:
        raise UserError(
            f"`--date` must be a day such as {calendar[-1]:%Y-%m-%d}, found {brief(asked)}"
        ) from error
    if day is pd.NaT or day != day.normalize() or day.tz is not None:
        raise UserError(f"`--date` must be a day such as {calendar[-1]:%Y-%m-%d}, found {brief(asked)}")
    if day in calendar:
        return day
    place = calendar.searchsorted(day)
    if place == len(calendar):
        raise UserError(
            f"{day:%Y-%m-%d} is after the last day of the store {store.root}, {calendar[-1]:%Y-%m-%d}: "
            "bring newer days in with `qlib-ext data update`, or leave `--date` out"
        )
    if place == 0:
        raise UserError(
            f"{day:%Y-%m-%d} is before the first day of the store {store.root}, {calendar[0]:%Y-%m-%d}"
        )
    raise UserError(
        f"{day:%Y-%m-%d} is no trading day of the store {store.root}: the nearest are "
        f"{calendar[place - 1]:%Y-%m-%d} and {calendar[place]:%Y-%m-%d}"
    )


def score(
    run: TrainedRun,
    store: QlibStore,
    day: pd.Timestamp,
    *,
    asked: bool = False,
    after: pd.Timestamp | None = None,
) -> Scored:
    """Score the members of the run's universe on one day, with the weights and statistics of the training.

    The scores are those that a backtest of that day gets: the same dataset, the same network, nothing fitted anew. To
    prove it, the run's own last scored day that the store has is scored as well and compared bit for bit; where the
    store is not the one of the run, so are the returns and memberships of all days that both have.

    Parameters
    ----------
    run
        What to score with.
    store
        The store that Qlib reads.
    day
        A day of its calendar.
    asked
        Whether the day was asked for by name: then it may be one that the model was trained on, with a warning.
    after
        A day since which all days are scored, into `past`; None for none.

    Raises
    ------
    UserError
        If the universe has no member with a close that day, a field that the model needs has no value that day, or
        the day is not after the training and was not asked for.
    """
    notes, warnings = _age(run, store, day, asked=asked)
    check = _day_to_check(run, store, day)
    days = {DAY: (day, day)}
    if check is not None and check != day:
        days[CHECK] = (check, check)
    between = (
        store.calendar[:0]
        if after is None
        else store.calendar[(store.calendar > after) & (store.calendar < day)]
    )
    if len(between):
        days[PAST] = between[0], between[-1]
    _check_members(run, store, day)
    models = _models(run, days)
    for of_run, _, dataset in models:
        _check_fields(of_run, dataset, day, warnings)
    predictions = _predict(run, models, DAY)
    device = next((found for _, model, _ in models if (found := getattr(model, "device", None))), None)
    dataset = models[0][2]
    trained_on = next(
        (found for of_run, _, _ in models if (found := of_run.artifacts.tags.get("device"))), None
    )
    if device is not None and trained_on not in (None, device):
        notes.append(
            f"the run was made on {trained_on}, this is {device}: last digits of the scores may differ"
        )
    if check is None:
        notes.append(
            "the store has no day that the run has scored, so the scores cannot be compared with its own"
        )
    else:
        again = predictions if check == day else _predict(run, models, CHECK)
        before = run.table("signal/predictions.parquet")
        assert before is not None
        _compare_scores(before.loc[check], again, check, notes, warnings)
    _compare_store(run, store, dataset, notes, warnings)
    past = _tabled(run, models, PAST)["score"] if len(between) else None
    return Scored(day, predictions, dataset.handler.panel, notes, warnings, past)


def score_from_file(
    run: TrainedRun,
    store: QlibStore,
    path: Path,
    date: str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
) -> Scored:
    """The scores that a file has of a day, for the members of the run's universe.

    Parameters
    ----------
    run
        Whose universe is scored and whose strategy will trade. Where it was given its own scores by a file, the new one is
        read the same way.
    store
        The store that Qlib reads.
    path
        As `qlib_ext.data.score_file.read_scores` takes it.
    date
        A day; by default the newest of the file.
    columns, encoding
        As `read_scores` takes them, in the place of those of the run.

    Raises
    ------
    UserError
        If the file cannot be read, the day is none of the store or has no score of a member.
    """
    given = run.given_scores()
    found = read_scores(
        path,
        store,
        columns=columns or (None if given is None else given.columns),
        encoding=encoding or ("utf-8" if given is None else given.encoding),
    )
    days = found.scores.index.get_level_values("datetime").unique()
    if date is None and days[-1] > store.calendar[-1]:
        raise UserError(
            f"{path} has scores of {days[-1]:%Y-%m-%d}, and the store {store.root} ends on {store.calendar[-1]:%Y-%m-%d}: bring "
            "newer days in with `qlib-ext data update`, or ask for a day that both have with `--date`"
        )
    day = find_day(store, f"{days[-1]:%Y-%m-%d}" if date is None else date)
    _check_members(run, store, day)
    if day not in days:
        raise UserError(
            f"{path} has no score of {day:%Y-%m-%d}: its days are {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {len(days):,} of "
            "them"
        )
    dataset = run.dataset({DAY: (day, day)}, features=False)
    panel = dataset.handler.panel
    present = pd.Index(panel.instruments)[panel.present[panel.calendar.get_loc(day)]]
    scored = found.scores.loc[day]
    predictions = scored[scored.index.isin(present)].to_frame()
    if predictions.empty:
        raise UserError(
            f"{path} has scores of {counted(len(scored), 'stock')} on {day:%Y-%m-%d}, none of which is a member of "
            f"`{run.summary['universe']}` with a close that day"
        )
    notes, warnings = _about_store(run, store, day)
    notes += found.notes
    if len(scored) > len(predictions):
        others = counted(len(scored) - len(predictions), "score")
        notes.append(f"{others} of stocks that the universe does not have that day, or without a close")
    _compare_file(run, found.scores, day, notes, warnings)
    _compare_store(run, store, dataset, notes, warnings)
    return Scored(day, predictions, panel, notes, warnings, _past(run, store, found.scores, day))


def _past(run: TrainedRun, store: QlibStore, scores: pd.Series, day: pd.Timestamp) -> pd.Series:
    """The scores of trading days before `day`, of those that were members with a close then."""
    days = store.calendar[store.calendar < day]
    table = scores.unstack("instrument").reindex(days)
    members = spell_mask(store.membership(str(run.summary["universe"])), days, [*table.columns])
    close = store.read(["close"], [*table.columns])[0, : len(days)]
    return table.where(members & np.isfinite(close)).rename_axis(index="datetime").stack().rename("score")


def _compare_file(
    run: TrainedRun, scores: pd.Series, day: pd.Timestamp, notes: list[str], warnings: list[str]
) -> None:
    """Hold the newest day before `day` that the file and the run both have against each other."""
    before = run.table("signal/predictions.parquet")
    if before is None:
        return
    both = before.index.get_level_values("datetime").intersection(scores.index.get_level_values("datetime"))
    both = both[both <= day]
    if both.empty:
        notes.append("the file has no day that the run has scored, so it cannot be compared with the run")
        return
    shared = before.loc[both.max(), "score"].to_frame("before").join(scores.loc[both.max()].to_frame("now"))
    other = ~(np.abs(shared["before"] - shared["now"]) <= SAME_SCORE * float(shared["before"].std(ddof=0)))
    where = f"on {both.max():%Y-%m-%d}, which the run has too,"
    if not other.any():
        notes.append(f"{where} the file has the same scores of all {len(shared)} stocks")
        return
    warnings.append(
        f"{where} the file has other scores of {int(other.sum())} of {len(shared)} stocks: is it of the same model?"
    )


def _compare_store(
    run: TrainedRun, store: QlibStore, dataset: DailyPanelDataset, notes: list[str], warnings: list[str]
) -> None:
    if store.calendar[-1] == pd.Timestamp(run.summary["store_end"]) and (
        store.fingerprint() == run.summary["fingerprint"]
    ):
        notes.append("the store is the one that the run was made with")
    else:
        compare_past(run, dataset, notes, warnings)


def _models(
    run: TrainedRun, days: Mapping[str, tuple[pd.Timestamp, pd.Timestamp]]
) -> list[tuple[TrainedRun, Model, DailyPanelDataset]]:
    """The models that score for a run, its own or those of its members, each with its dataset; equal datasets are one."""
    found: list[tuple[TrainedRun, Model, DailyPanelDataset]] = []
    for each in run.members or (run,):
        dataset = next(
            (
                dataset
                for other, _, dataset in found
                if other.config["dataset"] == each.config["dataset"]
                and all(map(np.array_equal, other.statistics(), each.statistics()))
            ),
            None,
        )
        dataset = each.dataset(days) if dataset is None else dataset
        found.append((each, each.model(dataset), dataset))
    return found


def _predict(
    run: TrainedRun, models: Sequence[tuple[TrainedRun, Model, DailyPanelDataset]], segment: str
) -> pd.DataFrame:
    return _tabled(run, models, segment).droplevel("datetime")


def _tabled(
    run: TrainedRun, models: Sequence[tuple[TrainedRun, Model, DailyPanelDataset]], segment: str
) -> pd.DataFrame:
    tables = [as_predictions(model.predict(dataset, segment)) for _, model, dataset in models]
    frame = combine_tables(tables, run.combiner()) if run.members else tables[0]
    return frame


def _age(run: TrainedRun, store: QlibStore, day: pd.Timestamp, *, asked: bool) -> tuple[list[str], list[str]]:
    """What the day says about the model and the store about the day."""
    notes: list[str] = []
    warnings: list[str] = []
    learned = [bounds[1] for name in ("train", "valid") if (bounds := run.segment(name)) is not None]
    if learned and day <= max(learned):
        if not asked:
            raise UserError(
                f"the store {store.root} ends on {day:%Y-%m-%d}, and the model was trained and chosen on days up to "
                f"{max(learned):%Y-%m-%d}: it has no new day. Bring newer days in with `qlib-ext data update`, or ask "
                "for a day of the past with `--date`"
            )
        warnings.append(
            f"the model was trained and chosen on days up to {max(learned):%Y-%m-%d}: it has seen what followed "
            f"{day:%Y-%m-%d}"
        )
    of_store = _about_store(run, store, day)
    notes, warnings = [*notes, *of_store[0]], [*warnings, *of_store[1]]
    lookback = int(run.summary["lookback_days"])
    before = int(store.calendar.get_loc(day)) + 1
    if before < lookback:
        warnings.append(
            f"the store has {before} days up to this one, and the model looks at {lookback}: what is missing counts as "
            "average"
        )
    return notes, warnings


def _about_store(run: TrainedRun, store: QlibStore, day: pd.Timestamp) -> tuple[list[str], list[str]]:
    """What the end of the store says about the run and about the day: notes and warnings."""
    notes: list[str] = []
    warnings: list[str] = []
    end = pd.Timestamp(run.summary["store_end"])
    if store.calendar[-1] < end:
        warnings.append(
            f"the store ends on {store.calendar[-1]:%Y-%m-%d}, before the one that the run was made with "
            f"({end:%Y-%m-%d}): is it the right one?"
        )
    if day < store.calendar[-1]:
        notes.append(
            f"the store has {counted(int((store.calendar > day).sum()), 'day')} after this one; no score looks at them"
        )
    return notes, warnings


def last_scored(run: TrainedRun) -> pd.Timestamp | None:
    """The last day that the run keeps scores of; None where it keeps none."""
    table = run.table("signal/predictions.parquet")
    return None if table is None else table.index.get_level_values("datetime").max()


def _day_to_check(run: TrainedRun, store: QlibStore, day: pd.Timestamp) -> pd.Timestamp | None:
    """The day itself if the run has scored it, else the last day that it has scored and the store has."""
    predictions = run.table("signal/predictions.parquet")
    if predictions is None:
        return None
    scored = predictions.index.get_level_values("datetime").unique()
    if day in scored:
        return day
    both = scored.intersection(store.calendar)
    return None if both.empty else both.max()


def _check_members(run: TrainedRun, store: QlibStore, day: pd.Timestamp) -> None:
    universe = str(run.summary["universe"])
    spells = store.membership(universe)
    if not ((spells["start"] <= day) & (day <= spells["end"])).any():
        raise UserError(
            f"the universe `{universe}` of the store {store.root} has no member on {day:%Y-%m-%d}: its last spell ends "
            f"on {spells['end'].max():%Y-%m-%d}. Bring its members up to date (`qlib-ext data universe`, or "
            "`qlib-ext data update --universes carry`)"
        )


def _check_fields(
    run: TrainedRun, dataset: DailyPanelDataset, day: pd.Timestamp, warnings: list[str]
) -> None:
    """Every field that the training had must have values that day."""
    panel = dataset.handler.panel
    position = panel.calendar.get_loc(day)
    here = panel.present[position]
    for name in panel.fields:
        if name in run.summary["missing_fields"]:
            continue
        there = ~np.isnan(panel.field(name)[position, here])
        if not there.any():
            raise UserError(
                f"the store has no `{name}` of any stock on {day:%Y-%m-%d}, and the model was trained with it: bring "
                "it in, or ask for another day with `--date`"
            )
        if there.mean() < MANY:
            warnings.append(
                f"`{name}` is missing for {int((~there).sum())} of {len(there)} stocks on {day:%Y-%m-%d}: it counts as "
                "average there"
            )


def _compare_scores(
    before: pd.DataFrame, again: pd.DataFrame, day: pd.Timestamp, notes: list[str], warnings: list[str]
) -> None:
    """Hold the scores of a day against those that the run has kept of it."""
    where = f"on {day:%Y-%m-%d}, which the run has scored itself,"
    if before.index.sort_values().equals(again.index.sort_values()):
        old, new = (frame["score"].sort_index().to_numpy() for frame in (before, again))
        if old.dtype == new.dtype and np.array_equal(old, new, equal_nan=True):
            notes.append(f"{where} the scores of all {len(new)} stocks are the run's, bit for bit")
            return
        apart = float(np.nanmax(np.abs(old.astype(float) - new.astype(float)), initial=0.0))
        if apart <= SAME_SCORE * float(np.nanstd(old)):
            notes.append(f"{where} the scores of all {len(new)} stocks are the run's to within {apart:.1e}")
            return
        warnings.append(
            f"{where} the scores differ from the run's, by up to {apart:.2g} (their standard deviation is "
            f"{float(np.nanstd(old)):.2g}): the store's past or the package has changed since the training"
        )
        return
    gone, new_ones = before.index.difference(again.index), again.index.difference(before.index)
    warnings.append(
        f"{where} the stocks are others: {_some(gone)} no longer there, {_some(new_ones)} new. The store's past has "
        "changed since the training"
    )


def compare_past(run: TrainedRun, dataset: DailyPanelDataset, notes: list[str], warnings: list[str]) -> None:
    """Hold the store's past against what the run has kept of it: members of each day, and returns of the test days.

    Newer days are normal and noted; another past is a warning.
    """
    panel = dataset.handler.panel
    calendar = panel.calendar
    end = pd.Timestamp(run.summary["store_end"])
    newer = int((calendar > end).sum())
    found: list[str] = []
    coverage = run.table("data/coverage.parquet")
    if coverage is not None:
        begin = max(coverage.index.min(), calendar[0])
        kept = coverage[(coverage.index >= begin) & (coverage.index <= calendar[-1])]
        lost = kept.index.difference(calendar)
        if len(lost):
            found.append(f"{len(lost)} trading days are gone, the first is {lost[0]:%Y-%m-%d}")
        kept = kept.loc[kept.index.intersection(calendar)]
        places = calendar.get_indexer(kept.index)
        now = pd.DataFrame(
            {"members": panel.members[places].sum(axis=1), "scored": panel.present[places].sum(axis=1)},
            index=kept.index,
        )
        other = (now != kept[["members", "scored"]]).any(axis=1)
        if other.any():
            day = other.index[other][0]
            found.append(
                f"the universe has other members or closes on {int(other.sum())} of {len(other)} days, first on "
                f"{day:%Y-%m-%d} ({now.loc[day, 'scored']} stocks, then {kept.loc[day, 'scored']})"
            )
    returns = _changed_returns(run, dataset)
    if returns is not None:
        found.append(returns)
    if found:
        warnings.append(
            f"the store's past is not that of the training: {'; '.join(found)}. Scores build on it; `qlib-ext data "
            "check` looks for faults"
        )
    elif newer:
        notes.append(
            f"the store has {newer} days that the training did not, and the same past as far as the run kept it"
        )
    else:
        notes.append("the store is another than the run's, with the same past as far as the run kept it")


def _changed_returns(run: TrainedRun, dataset: DailyPanelDataset) -> str | None:
    """Whether closes of the run's test days have changed, by the returns that the run has kept."""
    labels = run.table("signal/labels.parquet")
    if labels is None or not len(labels.columns):
        return None
    loader = dataset.handler.data_loader
    panel = loader.panel
    known = loader.labels
    name = next((name for name in ("RETURN", *known) if name in labels and name in known), None)
    if name is None:
        return None
    kept = labels[name].dropna()
    days = panel.calendar.get_indexer(kept.index.get_level_values("datetime"))
    stocks = pd.Index(panel.instruments).get_indexer(kept.index.get_level_values("instrument"))
    there = (days >= 0) & (stocks >= 0)
    now = np.full(len(kept), np.nan)
    values = known[name].values(panel, dataset.store).of(slice(0, len(panel.calendar)))
    now[there] = values[days[there], stocks[there]]
    # the last days of a store that ends early have no label yet; that is no change
    horizon = known[name].horizon_days
    judged = there & (days < len(panel.calendar) - horizon)
    changed = judged & ~(np.abs(now - kept.to_numpy(dtype=float)) <= SAME_RETURN)
    if not changed.any():
        return None
    day, code = kept.index[np.flatnonzero(changed)[0]]
    return (
        f"{int(changed.sum()):,} of {int(judged.sum()):,} returns ({name}) of the test days are others, first that of "
        f"{code} on {day:%Y-%m-%d}"
    )


def _some(codes: Sequence[str] | pd.Index) -> str:
    """`none`, or how many and which, three at most."""
    if not len(codes):
        return "none"
    shown = ", ".join(map(str, codes[:3]))
    return f"{len(codes)} ({shown}{', ...' if len(codes) > 3 else ''})"
