"""How data reach the model in published systems around Qlib, as datasets, handlers, processors and models of few lines.

Written anew from what their files say; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.contrib.data.handler import Alpha158
from qlib.contrib.model.linear import LinearModel
from qlib.data.dataset import DatasetH, TSDatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.processor import Processor


class WindowsLearnedFromEverywhere(TSDatasetH):
    """Hands out the windows of every segment as they are learned from, those of the test days too."""

    def prepare(self, segments: Any, *args: Any, **kwargs: Any) -> Any:
        """As Qlib's, with the processors of learning."""
        kwargs["data_key"] = DataHandlerLP.DK_L
        return super().prepare(segments, *args, **kwargs)


class DropExtremeLabels(Processor):
    """Drops of each day the rows with the highest and the lowest labels.

    Parameters
    ----------
    share
        Of a day's rows that are dropped, at both ends together.
    """

    def __init__(self, share: float = 0.05) -> None:
        self.share = share

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """The table without them."""
        days = df["label"].iloc[:, 0].groupby(level="datetime")
        place, size = days.rank(method="first"), days.transform("size")
        cut = (size * self.share / 2).astype(int)
        return df[(place > cut) & (place <= size - cut)]

    def is_for_infer(self) -> bool:
        """It reads labels, so Qlib would refuse it for inference."""
        return False


class GuidedByIndices(Alpha158):
    """`Alpha158`, and the same market columns on every row of a day.

    An index's return, and means and deviations of its returns and volumes over days that end with the row's.

    Parameters
    ----------
    indices
        Their codes.
    days
        The lengths that are averaged over.
    **kwargs
        As for `Alpha158`.
    """

    def __init__(
        self, indices: Sequence[str], days: Sequence[int] = (5, 10, 20, 30, 60), **kwargs: Any
    ) -> None:
        self.indices = tuple(indices)
        self.days = tuple(days)
        super().__init__(**kwargs)

    def get_feature_config(self) -> tuple[list[str], list[str]]:
        """Expressions and names: those of `Alpha158`, then of each index."""
        expressions, names = (list(part) for part in super().get_feature_config())
        moved = "$close/Ref($close,1)-1"
        for code in self.indices:
            kinds = {"RETURN": moved}
            for n in self.days:
                kinds |= {
                    f"MEAN{n}": f"Mean({moved},{n})",
                    f"STD{n}": f"Std({moved},{n})",
                    f"VOLUME{n}": f"Mean($volume,{n})/$volume",
                    f"VOLUMESTD{n}": f"Std($volume,{n})/$volume",
                }
            expressions += [f'Mask({what}, "{code.lower()}")' for what in kinds.values()]
            names += [f"{code}{kind}" for kind in kinds]
        return expressions, names


class ByTheHighest(Processor):
    """Divides columns of a stock by the highest value that any of them takes on any day of the table.

    Parameters
    ----------
    groups
        Columns that are divided by one number, of each group the highest.
    """

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        self.groups = [list(group) for group in groups]

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """The table, scaled."""
        df = df.copy()
        for group in self.groups:
            columns = [("feature", name) for name in group]
            top = df[columns].max(axis=1).groupby(level="instrument").transform("max")
            df[columns] = df[columns].div(top, axis=0)
        return df


class CorrelationsOfAllDays(Processor):
    """Adds to each row what the correlations of its stock's labels with those of all others are, over all days of the table."""

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """The table with two columns more: their mean and their deviation."""
        table = df["label"].iloc[:, 0].unstack("instrument").fillna(0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            of_all = pd.DataFrame(
                np.nan_to_num(np.corrcoef(table.to_numpy(), rowvar=False)), table.columns, table.columns
            )
        df = df.copy()
        code = df.index.get_level_values("instrument")
        df[("feature", "CORRMEAN")] = of_all.mean().reindex(code).to_numpy()
        df[("feature", "CORRSTD")] = of_all.std().reindex(code).to_numpy()
        return df


class LinearMaskedByLabel(LinearModel):
    """Sets the score of a stock far down where its label is missing or zero, as of a stock that will not trade."""

    def predict(self, dataset: DatasetH, segment: Any = "test") -> pd.Series:
        """As Qlib's linear model, masked."""
        scores = super().predict(dataset, segment)
        label = dataset.prepare(segment, col_set="label", data_key=DataHandlerLP.DK_R).iloc[:, 0]
        return scores.mask(label.reindex(scores.index).fillna(0.0) == 0.0, -1e9)
