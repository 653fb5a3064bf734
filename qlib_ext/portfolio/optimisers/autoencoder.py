"""Portfolios from an autoencoder of past returns."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from qlib_ext.checks import LARGEST_SEED, UserError, above, at_least, integer, one_of
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.optimisers.past_returns import past_returns
from qlib_ext.portfolio.optimisers.shares import candidates, in_shares
from qlib_ext.portfolio.problem import Infeasible, Problem

ACTIVATIONS = {"linear": nn.Identity, "tanh": nn.Tanh, "relu": nn.ReLU}


class AutoencoderPortfolio(Optimiser):
    r"""Weights from an autoencoder that is fitted on past returns, anew on each day.

    Source: Heaton, Polson and Witte (2017), "Deep learning for finance: deep portfolios", Applied Stochastic Models in Business
    and Industry 33.

    .. math:: \min_{E, D} \sum_{t,i} \bigl(z_{ti} - D(E(z_t))_i\bigr)^2,\qquad z_{ti} = (r_{ti} - \bar r_i) / \sigma_i

    with an encoder E from N stocks to a few latent factors and a linear decoder D back.

    Parameters
    ----------
    by
        `error`: the `most` stocks that the latent factors explain best, and the `least` that they explain worst, at equal
        weight. `factors`: each latent factor as a portfolio of :math:`D_{ik} / \sigma_i` where that is above 0, at the sign at
        which it is net long, and all of them at equal weight; with one factor and `linear` it is the first eigen portfolio.
    factors
        Latent factors.
    most, least
        Number of stocks, with `by: error`.
    activation
        Of the latent factors: `tanh`, `relu` or `linear`.
    days
        Days of past returns.
    epochs
        Steps of Adam, each on all days.
    learning_rate
        Adam's.
    weight_decay
        L2 on all weights, which keeps the noise of single stocks out of the factors.
    seed
        Of the first weights. The same seed gives the same weights, whatever ran before.

    Departures
    ----------
    The authors choose stocks by hand for one study and then fit them to the index by a second network; here chosen stocks have
    equal weight, and the limits of the portfolio do the rest.
    """

    def __init__(
        self,
        by: str = "error",
        factors: int = 5,
        most: int = 10,
        least: int = 20,
        activation: str = "tanh",
        days: int = 250,
        epochs: int = 200,
        learning_rate: float = 0.01,
        weight_decay: float = 1e-4,
        seed: int = 0,
    ) -> None:
        self.by = one_of("by", by, ("error", "factors"))
        self.factors = integer("factors", factors, 1)
        self.most, self.least = integer("most", most, 0), integer("least", least, 0)
        if by == "error" and most + least == 0:
            raise UserError("`most` and `least` must name one stock at least, found 0 of both")
        self.activation = one_of("activation", activation, tuple(ACTIVATIONS))
        self.days_back = integer("days", days, 2)
        self.epochs = integer("epochs", epochs, 1)
        self.learning_rate = float(above("learning_rate", learning_rate, 0.0))
        self.weight_decay = float(at_least("weight_decay", weight_decay, 0.0))
        self.seed = integer("seed", seed, 0, LARGEST_SEED)

    def solve(self, problem: Problem) -> Floats:
        """Weights of the stocks that may be held."""
        places = candidates(problem)
        returns = past_returns(problem.known, self.days_back, places)
        volatility = returns.std(axis=0)
        moving = volatility > 0
        places, returns, volatility = places[moving], returns[:, moving], volatility[moving]
        if not places.size:
            raise Infeasible("no stock that may be held has moved")
        scaled = (returns - returns.mean(axis=0)) / volatility
        errors, loadings = self._fit(scaled)
        own = self._by_error(errors) if self.by == "error" else self._by_factors(loadings, volatility)
        shares = np.zeros(problem.count)
        shares[places] = own
        return in_shares(problem, shares, of="the stocks that the autoencoder takes")

    def _fit(self, scaled: Floats) -> tuple[Floats, Floats]:
        """Mean squared error of each stock `[N]`, and the decoder's loadings `[N, K]`."""
        given = torch.from_numpy(scaled).float()
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            encoder, decoder = (
                nn.Linear(given.shape[1], self.factors),
                nn.Linear(self.factors, given.shape[1]),
            )
            network = nn.Sequential(encoder, ACTIVATIONS[self.activation](), decoder)
            adam = torch.optim.Adam(
                network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
            )
            for _ in range(self.epochs):
                adam.zero_grad()
                nn.functional.mse_loss(network(given), given).backward()
                adam.step()
            errors = (network(given) - given).square().mean(dim=0)
        return errors.detach().double().numpy(), decoder.weight.detach().double().numpy()

    def _by_error(self, errors: Floats) -> Floats:
        """Equal shares of the stocks that are explained best and worst."""
        order = np.argsort(errors, kind="stable")
        shares = np.zeros(len(errors))
        shares[order[: self.most]] = 1.0
        shares[order[max(0, len(order) - self.least) :]] = 1.0
        return shares

    def _by_factors(self, loadings: Floats, volatility: Floats) -> Floats:
        """The mean of the factors' portfolios."""
        each = loadings / volatility[:, None]
        each = np.maximum(each * np.where(each.sum(axis=0) < 0, -1.0, 1.0), 0.0)
        return (each / each.sum(axis=0)).mean(axis=1)
