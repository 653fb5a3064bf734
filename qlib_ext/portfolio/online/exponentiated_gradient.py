"""Shares by exponentiated gradient."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import above, integer
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.online.base import MixingRule, best_mix


class ExponentiatedGradient(MixingRule):
    r"""Moves shares towards members that did better than the mix.

    Source: Helmbold, Schapire, Singer and Warmuth (1998), "On-line portfolio selection using multiplicative updates",
    Mathematical Finance 8.

    .. math:: p_{d+1,m} \propto p_{d,m} \exp\Bigl(\eta\,\frac{x_{dm}}{p_d \cdot x_d}\Bigr)

    Parameters
    ----------
    rate
        :math:`\eta`; the authors take 0.05, which for portfolios of the same stocks hardly moves. None sets it by how far
        members have been apart, :math:`\eta_d = \sqrt{8 \ln M / (n\,\delta_0^2 + \sum_{s<d} \delta_s^2)}` with
        :math:`\delta_s` the largest difference between two members' :math:`x_{sm} / (p_s \cdot x_s)` on a day.
    apart, patience
        :math:`\delta_0` and n: by how much two members are expected to differ on a day, and for how many days before the first.
        With little patience the first days decide; with much, shares stay even for longer.

    Notes
    -----
    The regret is to the best mix in hindsight that is rebalanced to constant shares every day, of which the best member is one.
    It is at most :math:`\ln M / \eta_{D} + \sum_d \eta_d \delta_d^2 / 8`, which follows for any numbers from Hoeffding's lemma and
    :math:`\log z \le z - 1` (Cesa-Bianchi and Lugosi (2006), "Prediction, learning, and games", chapter 2).
    """

    def __init__(self, rate: float | None = None, apart: float = 0.01, patience: int = 250) -> None:
        self.rate = None if rate is None else float(above("rate", rate, 0.0))
        self.apart = float(above("apart", apart, 0.0))
        self.patience = integer("patience", patience, 1)

    def shares(self, relatives: Floats) -> Floats:
        """By the gains so far."""
        return self._run(relatives)[0]

    def bound(self, relatives: Floats) -> float:
        """Of the regret, from how far members were apart."""
        shares, rates, apart = self._run(relatives)
        if not len(relatives):
            return 0.0
        return float(np.log(shares.shape[1]) / rates[-2] + (rates[:-1] * apart**2).sum() / 8)

    def rival(self, relatives: Floats) -> float:
        """The best mix of constant shares."""
        return float(np.log(relatives @ best_mix(relatives)).sum())

    def _run(self, relatives: Floats) -> tuple[Floats, Floats, Floats]:
        """Shares `[D + 1, M]`, rates `[D + 1]` and how far members were apart `[D]`."""
        days, members = relatives.shape
        shares, rates, apart = np.empty((days + 1, members)), np.empty(days + 1), np.empty(days)
        gains = np.zeros(members)
        for day in range(days + 1):
            rates[day] = self._rate(members, apart[:day])
            power = rates[day] * (gains - gains.max())
            shares[day] = np.exp(power) / np.exp(power).sum()
            if day < days:
                gain = relatives[day] / (shares[day] @ relatives[day])
                apart[day] = np.ptp(gain)
                gains += gain
        return shares, rates, apart

    def _rate(self, members: int, apart: Floats) -> float:
        if self.rate is not None:
            return self.rate
        return float(
            np.sqrt(8 * np.log(max(members, 2)) / (self.patience * self.apart**2 + (apart**2).sum()))
        )
