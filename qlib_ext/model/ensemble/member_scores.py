"""What the members of an ensemble said of the validation and of the test segment, and the one score of both."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import dotted
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.model.combiners.base import Combiner
from qlib_ext.model.trainings.below import PREDICTIONS
from qlib_ext.model.walk_forward import RUNS
from qlib_ext.tracking.artifacts import RunArtifacts, stored

VALIDATION = "signal/validation.parquet"
MEMBERS, COMBINER = "ensemble/members.json", "ensemble/combiner.json"


@dataclass(frozen=True)
class MemberScores:
    """Scores of M members on the same days.

    Attributes
    ----------
    names
        ``[M]``, of the members.
    predictions
        ``[M]`` tables of the test segment, `score` first, then what else the member predicts.
    validation
        ``[M]`` tables of the validation segment, `score` and the raw labels beside it; empty where nobody asks for them.
    """

    names: tuple[str, ...]
    predictions: tuple[pd.DataFrame, ...]
    validation: tuple[pd.DataFrame, ...] = ()

    @classmethod
    def read(cls, client: MlflowClient, runs: Mapping[str, str], *, validation: bool) -> MemberScores:
        """From the members' runs, by name; `validation` says whether theirs is needed, or read only where all of them keep it.

        Raises
        ------
        UserError
            If a run does not keep it.
        """
        wanted = (PREDICTIONS, VALIDATION) if validation else (PREDICTIONS,)
        kept_by = {name: stored(client, run_id, (PREDICTIONS, VALIDATION)) for name, run_id in runs.items()}
        if all(VALIDATION in there for there in kept_by.values()):
            wanted = (PREDICTIONS, VALIDATION)
        found: dict[str, list[pd.DataFrame]] = {path: [] for path in wanted}
        for name, run_id in runs.items():
            there = kept_by[name]
            for path in wanted:
                if path not in there:
                    walked = bool(stored(client, run_id, [RUNS]))
                    raise UserError(
                        f"the member `{name}` ({run_id}) keeps no {path}: {_way_out(path, walked)}"
                    )
            with tempfile.TemporaryDirectory() as folder:
                kept = RunArtifacts.download(client, run_id, wanted, Path(folder))
                for path in wanted:
                    found[path].append(kept.table(path))
        tables = {path: tuple(each) for path, each in found.items()}
        return cls(tuple(runs), tables[PREDICTIONS], tables.get(VALIDATION, ()))

    def fit(self, combiner: Combiner, label: str) -> None:
        """Let a combiner that learns do so, on the validation segment alone.

        Raises
        ------
        UserError
            If a member has no such label, or no day of validation is that of all.
        """
        if not combiner.learns:
            return
        without = [
            name
            for name, table in zip(self.names, self.validation, strict=True)
            if label not in table.columns
        ]
        if without:
            raise UserError(
                f"`label` must be a raw label of every member, found no {brief(label)} in {', '.join(without)}, which has "
                f"{', '.join(map(str, self.validation[0].columns[1:]))}"
            )
        shared = shared_days(
            self.names, self.validation, "members must share days of validation to be weighted by"
        )
        tables = [table[table.index.get_level_values("datetime").isin(shared)] for table in self.validation]
        truth = pd.concat([table[label] for table in tables])
        truth = truth[~truth.index.duplicated()]
        index, values = spread([table["score"] for table in tables])
        combiner.fit(values, truth.unstack("instrument").reindex(index=index[0], columns=index[1]).to_numpy())

    def combined(self, combiner: Combiner, segment: str = "test") -> pd.DataFrame:
        """The scores of the ensemble of a segment, and the members' mean of what else they all predict."""
        tables = self.predictions if segment == "test" else self.validation
        return combine_tables(tables, combiner)


def shared_days(names: Sequence[str], tables: Sequence[pd.DataFrame], must: str) -> pd.Index:
    """The days that all tables have; a UserError of what `must` be where there is none."""
    days = [table.index.get_level_values("datetime").unique() for table in tables]
    shared = days[0]
    for each in days[1:]:
        shared = shared.intersection(each)
    if not len(shared):
        said = "; ".join(
            f"{name} {each.min():%Y-%m-%d} to {each.max():%Y-%m-%d}"
            for name, each in zip(names, days, strict=True)
        )
        raise UserError(f"{must}, found none: {said}")
    return shared


def _way_out(path: str, walked: bool) -> str:
    """What to do where a run does not keep what is needed."""
    if path == PREDICTIONS:
        return "a run of a workflow with SignalRecord is needed"
    way = (
        "it walks forward, and has a validation segment a fold: name an Ensemble as the model of its workflow"
        if walked
        else "train it again with this version"
    )
    return f"{way}, or combine by what learns no weights, such as qlib_ext.model.combiners.mean_rank.MeanRank"


def combine_tables(tables: Sequence[pd.DataFrame], combiner: Combiner) -> pd.DataFrame:
    """Predictions of the members as one table, sorted by (datetime, instrument).

    Other columns than the score, such as probabilities of classes, are the mean of the members that have them, by the weights
    of the score where these are not negative: a mean of probabilities is one.
    """
    index, values = spread([table["score"] for table in tables])
    score = _rows(combiner.combine(values), index).rename("score").to_frame()
    weights = np.maximum(combiner.weights_of(len(tables)), 0)
    others = [name for name in tables[0].columns[1:] if all(name in table.columns for table in tables)]
    for name in others:
        parts = [table[name].astype(float).reindex(score.index).to_numpy() for table in tables]
        given = np.stack(parts)
        known = np.where(np.isnan(given), 0.0, weights[:, None])
        total = known.sum(axis=0)
        mean = np.divide(
            (known * np.nan_to_num(given)).sum(axis=0),
            total,
            out=np.full(len(score), np.nan),
            where=total > 0,
        )
        score[name] = mean
    return score


def spread(scores: Sequence[pd.Series]) -> tuple[tuple[pd.DatetimeIndex, pd.Index], Floats]:
    """Scores by (datetime, instrument) as days, stocks and ``[M, D, S]``, NaN where a member has none."""
    wide = [score.astype("float64").unstack("instrument") for score in scores]
    days, stocks = wide[0].index, wide[0].columns
    for each in wide[1:]:
        days, stocks = days.union(each.index), stocks.union(each.columns)
    days, stocks = pd.DatetimeIndex(days.sort_values(), name="datetime"), stocks.sort_values()
    return (days, stocks), np.stack([each.reindex(index=days, columns=stocks).to_numpy() for each in wide])


def keep(recorder: Any, members: Sequence[Mapping[str, Any]], combiner: Combiner) -> None:
    """Write who the members are, and how they are combined, into the run under way."""
    weights = combiner.weights_of(len(members))
    how = {"combiner": repr(combiner), "class": dotted(type(combiner)), "weights": [*map(float, weights)]}
    with tempfile.TemporaryDirectory() as folder:
        for path, content in ((MEMBERS, [*members]), (COMBINER, how)):
            file = Path(folder) / Path(path).name
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            recorder.log_artifact(str(file), str(Path(path).parent))


def members_of(client: MlflowClient, run_id: str) -> dict[str, str]:
    """Name -> run of each member of an ensemble's run; none where it is a run of something else."""
    if not stored(client, run_id, (MEMBERS,)):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        kept = RunArtifacts.download(client, run_id, (MEMBERS,), Path(folder)).json(MEMBERS)
    return {member["member"]: member["run_id"] for member in kept}


def _rows(values: Floats, index: tuple[pd.DatetimeIndex, pd.Index]) -> pd.Series:
    """A matrix of days and stocks as rows by (datetime, instrument); what is missing has none."""
    table = pd.DataFrame(values, index=index[0], columns=index[1].rename("instrument"))
    return table.stack(future_stack=True).dropna()
