"""Qlib's Alpha158: 158 features of a day, from candles, prices, and windows of 5 to 60 days."""

from __future__ import annotations

from collections.abc import Sequence

from qlib_ext.checks import UserError, brief, integer, nearest, words
from qlib_ext.features.expressions import Expressions

WINDOWS = (5, 10, 20, 30, 60)

RANGE = "($high-$low+1e-12)"
CANDLE = {
    "KMID": "($close-$open)/$open",
    "KLEN": "($high-$low)/$open",
    "KMID2": f"($close-$open)/{RANGE}",
    "KUP": "($high-Greater($open, $close))/$open",
    "KUP2": f"($high-Greater($open, $close))/{RANGE}",
    "KLOW": "(Less($open, $close)-$low)/$open",
    "KLOW2": f"(Less($open, $close)-$low)/{RANGE}",
    "KSFT": "(2*$close-$high-$low)/$open",
    "KSFT2": f"(2*$close-$high-$low)/{RANGE}",
}
PRICE = {f"{field.upper()}0": f"${field}/$close" for field in ("open", "high", "low", "vwap")}

RISE, FALL = "Greater($close-Ref($close, 1), 0)", "Greater(Ref($close, 1)-$close, 0)"
MOVE = "Sum(Abs($close-Ref($close, 1)), {d})+1e-12"
MORE, LESS = "Greater($volume-Ref($volume, 1), 0)", "Greater(Ref($volume, 1)-$volume, 0)"
TURN = "Sum(Abs($volume-Ref($volume, 1)), {d})+1e-12"
UP, DOWN = "$close>Ref($close, 1)", "$close<Ref($close, 1)"
WEIGHTED = "Abs($close/Ref($close, 1)-1)*$volume"
# Name without its days -> formula of d days.
ROLLING = {
    "ROC": "Ref($close, {d})/$close",
    "MA": "Mean($close, {d})/$close",
    "STD": "Std($close, {d})/$close",
    "BETA": "Slope($close, {d})/$close",
    "RSQR": "Rsquare($close, {d})",
    "RESI": "Resi($close, {d})/$close",
    "MAX": "Max($high, {d})/$close",
    "MIN": "Min($low, {d})/$close",
    "QTLU": "Quantile($close, {d}, 0.8)/$close",
    "QTLD": "Quantile($close, {d}, 0.2)/$close",
    "RANK": "Rank($close, {d})",
    "RSV": "($close-Min($low, {d}))/(Max($high, {d})-Min($low, {d})+1e-12)",
    "IMAX": "IdxMax($high, {d})/{d}",
    "IMIN": "IdxMin($low, {d})/{d}",
    "IMXD": "(IdxMax($high, {d})-IdxMin($low, {d}))/{d}",
    "CORR": "Corr($close, Log($volume+1), {d})",
    "CORD": "Corr($close/Ref($close,1), Log($volume/Ref($volume, 1)+1), {d})",
    "CNTP": f"Mean({UP}, {{d}})",
    "CNTN": f"Mean({DOWN}, {{d}})",
    "CNTD": f"Mean({UP}, {{d}})-Mean({DOWN}, {{d}})",
    "SUMP": f"Sum({RISE}, {{d}})/({MOVE})",
    "SUMN": f"Sum({FALL}, {{d}})/({MOVE})",
    "SUMD": f"(Sum({RISE}, {{d}})-Sum({FALL}, {{d}}))/({MOVE})",
    "VMA": "Mean($volume, {d})/($volume+1e-12)",
    "VSTD": "Std($volume, {d})/($volume+1e-12)",
    "WVMA": f"Std({WEIGHTED}, {{d}})/(Mean({WEIGHTED}, {{d}})+1e-12)",
    "VSUMP": f"Sum({MORE}, {{d}})/({TURN})",
    "VSUMN": f"Sum({LESS}, {{d}})/({TURN})",
    "VSUMD": f"(Sum({MORE}, {{d}})-Sum({LESS}, {{d}}))/({TURN})",
}
# The twenty that Qlib's examples give to models of sequences.
SELECTED = [
    "RESI5",
    "WVMA5",
    "RSQR5",
    "KLEN",
    "RSQR10",
    "CORR5",
    "CORD5",
    "CORR10",
    "ROC60",
    "RESI10",
    "VSTD5",
    "RSQR60",
    "CORR60",
    "WVMA60",
    "STD5",
    "RSQR20",
    "CORD60",
    "CORD10",
    "CORR20",
    "KLOW",
]


def formulas(windows: Sequence[int] = WINDOWS) -> dict[str, str]:
    """Name -> expression, in Qlib's order."""
    rolling = {f"{name}{days}": text.format(d=days) for name, text in ROLLING.items() for days in windows}
    return {**CANDLE, **PRICE, **rolling}


class Alpha158(Expressions):
    """Qlib's Alpha158, or some of it.

    Source: Qlib, `qlib.contrib.data.loader.Alpha158DL`, for the names and formulas.

    Parameters
    ----------
    names
        Of the features, in their order; `selected` for the twenty of Qlib's examples of sequence models; None for all.
    windows
        The days of the rolling features.
    lookback_days, normalise, clip, optional_fields
        As for `Expressions`.

    Notes
    -----
    Same numbers as Qlib's Alpha158 under RobustZScoreNorm(clip_outlier=True) and Fillna: docs/features.md says how near.
    VWAP0 is 0 where the store has no vwap.
    """

    def __init__(
        self,
        names: Sequence[str] | str | None = None,
        windows: Sequence[int] = WINDOWS,
        lookback_days: int = 1,
        normalise: str = "robust",
        clip: float | None = 3.0,
        optional_fields: Sequence[str] = ("vwap",),
    ) -> None:
        days = [integer("windows", each, 2) for each in windows]
        known = formulas(days)
        chosen = SELECTED if names == "selected" else list(known) if names is None else words("names", names)
        for name in chosen:
            if name not in known:
                raise UserError(
                    f"`names` must be features of Alpha158, found {brief(name)}{nearest(name, known)}"
                )
        super().__init__(
            {name: known[name] for name in chosen}, lookback_days, normalise, clip, optional_fields
        )

    def families(self) -> dict[str, tuple[str, ...]]:
        """The candle, the prices, and each rolling feature with all its windows."""
        family = dict.fromkeys(CANDLE, "KBAR") | dict.fromkeys(PRICE, "PRICE")
        found: dict[str, tuple[str, ...]] = {}
        for name in self.names:
            key = family.get(name, name.rstrip("0123456789"))
            found[key] = (*found.get(key, ()), name)
        return found
