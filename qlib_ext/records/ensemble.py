"""The members of an ensemble beside each other: how alike they are, what each is worth alone, and what it adds."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, instance
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.metrics.bootstrap import overlapping_block, span_of
from qlib_ext.metrics.cross_section import Floats, icir, pearson, spearman
from qlib_ext.metrics.ensemble import leave_one_out, score_correlation
from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.model.combiners.base import Combiner
from qlib_ext.model.ensemble.member_scores import COMBINER, MEMBERS, MemberScores, spread
from qlib_ext.records.base import Record

TABLE, CORRELATION = "ensemble/members.csv", "ensemble/correlation.csv"
ALL = "ensemble"  # the row of all together


class EnsembleRecord(Record):
    """What the members of an ensemble say alone and together, on the days that are scored.

    Writes `ensemble/members.csv`, by name of the member, the last row that of all together (`ensemble`):

    - `weight`, by which its score counts;
    - `IC`, `RankIC`, `RankICIR` of its scores alone; of a validation segment, `RankIC/valid`;
    - `gain`, mean daily RankIC of all members less that of all but this one, each time weighted anew, and `gain_low`,
      `gain_high`, a 95 % interval by the block bootstrap of days;
    - `scored`, the share of the ensemble's scores that the member has one of too.

    And `ensemble/correlation.csv`, the mean daily rank correlation of each two members' scores. Logs
    `ensemble/members`, `ensemble/correlation`, the mean of two different ones, and `ensemble/gain_over_mean`, RankIC of all less the
    mean of the members.

    Parameters
    ----------
    recorder, model, dataset
        Given by Qlib; of the dataset nothing is read.
    label
        Raw label of the ICs.

    Raises
    ------
    UserError
        If the run has no such label, or its model is no ensemble.
    """

    needs = (MEMBERS, COMBINER, "signal/predictions.parquet", "signal/labels.parquet")
    makes = (TABLE, CORRELATION)
    of_model = True

    def __init__(self, recorder: Any, model: Any, dataset: Any, label: str = "RETURN"):
        super().__init__(recorder)
        self.model = model
        self.label = instance("label", label, str)

    def check_before(self, spec: DatasetSpec) -> None:
        """The label, against those of the dataset."""
        spec.require_raw_label("label", self.label)

    def _generate(self) -> None:
        scores: MemberScores | None = getattr(self.model, "scores", None)
        if not isinstance(scores, MemberScores):
            raise UserError(
                f"EnsembleRecord needs an ensemble that was trained, found {type(self.model).__name__}"
            )
        labels = self.load_table("signal/labels.parquet")[self.label]
        own = self.load_table("signal/predictions.parquet")["score"]
        index, values = spread([own, *(table["score"] for table in scores.predictions)])
        truth = labels.unstack("instrument").reindex(index=index[0], columns=index[1]).to_numpy()
        described = self.load_json("data/summary.json") if self.has("data/summary.json") else {}
        span = span_of(self.label, described.get("label_days", {}))
        table = self._table(scores, values, truth, span)
        correlation = score_correlation(values[1:])
        named = pd.DataFrame(correlation, index=[*scores.names], columns=[*scores.names])
        self.save_csv(TABLE, table.rename_axis(index="member"))
        self.save_csv(CORRELATION, named.rename_axis(index="member"))
        apart = correlation[~np.eye(len(correlation), dtype=bool)]
        alone = table["RankIC"].drop(ALL)
        figures = {"members": float(len(alone)), "gain_over_mean": table.loc[ALL, "RankIC"] - alone.mean()}
        if len(apart):
            figures["correlation"] = float(np.nanmean(apart))
        self.log_metrics({f"ensemble/{name}": value for name, value in figures.items()})

    def _table(self, scores: MemberScores, values: Floats, truth: Floats, span: int) -> pd.DataFrame:
        weights = self.model.combiner.weights_of(len(scores.names))
        gains = leave_one_out(values[1:], truth, lambda given, who: self._of(scores, who).combine(given))
        rows = {}
        for k, name in enumerate((*scores.names, ALL)):
            own = values[(k + 1) % len(values)]  # that of all stands first
            ic, rank_ic = pearson(own, truth), spearman(own, truth)
            row = {"IC": np.nanmean(ic), "RankIC": np.nanmean(rank_ic), "RankICIR": icir(rank_ic)}
            row["scored"] = float(
                (~np.isnan(own) & ~np.isnan(values[0])).sum() / (~np.isnan(values[0])).sum()
            )
            if name != ALL:
                row["weight"] = weights[k]
                known = gains[k][~np.isnan(gains[k])]
                if len(known) > 1:
                    low, high = bootstrap_mean(known, block_days=overlapping_block(len(known), span))
                    row |= {"gain": known.mean(), "gain_low": low, "gain_high": high}
            rows[name] = row
        table = pd.DataFrame.from_dict(rows, orient="index")
        valid = self._valid(scores)
        return table if valid is None else table.assign(**{"RankIC/valid": valid})

    def _of(self, scores: MemberScores, who: list[int]) -> Combiner:
        """The combiner of some members, who have learned their weights without the others."""
        combiner = copy.deepcopy(self.model.combiner)
        combiner.weights = None
        if combiner.learns:
            some = MemberScores(
                tuple(scores.names[k] for k in who),
                tuple(scores.predictions[k] for k in who),
                tuple(scores.validation[k] for k in who),
            )
            some.fit(combiner, self.model.label)
        return combiner

    def _valid(self, scores: MemberScores) -> pd.Series | None:
        """RankIC on the validation of each member and of all."""
        if not scores.validation or any(self.label not in table for table in scores.validation):
            return None
        index, values = spread([table["score"] for table in scores.validation])
        labels = pd.concat([table[self.label] for table in scores.validation])
        labels = labels[~labels.index.duplicated()].unstack("instrument")
        truth = labels.reindex(index=index[0], columns=index[1]).to_numpy()
        together = self.model.combiner.combine(values)
        return pd.Series(
            [np.nanmean(spearman(each, truth)) for each in (*values, together)], index=[*scores.names, ALL]
        )
