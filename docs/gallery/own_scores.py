# %% [markdown]
# # Scores of your own, judged and traded
#
# You have a model already, or an idea in one line of pandas. Its scores are enough.

# %%
import numpy as np

import qlib_ext.api as qe
from qlib_ext.market.synthetic.sample import SampleMarket

# %%
SampleMarket(seed=3, stocks=24, start="2015-11-02", end="2016-06-30").write("cn")
store = qe.Store("cn")

# %% [markdown]
# ## The idea
#
# Stocks that fell for a week shall rise: the score of a day is the return of the last five, with its sign turned. It is known at
# the close of the day, and is traded on the next.

# %%
codes = store.members("csi300", "2016-05-03")
close = store.bars(codes, ["close"])["close"].unstack("instrument")
reversal = -close.pct_change(5, fill_method=None).loc["2016-03-01":]
reversal.iloc[-3:, :5]

# %% [markdown]
# ## Does it rank?
#
# The correlation of ranks by day with the return that follows, without any run:

# %%
labels = store.labels(universe="csi300")
qe.ic_summary(reversal, labels)

# %% [markdown]
# ## Judged and traded
#
# `evaluate` makes a run of it, with the whole report: intervals, costs, portfolios without skill, capacity.

# %%
mine = qe.evaluate(reversal, store, universe="csi300", topk=5, n_drop=1, name="reversal")
mine

# %% [markdown]
# ## Against nothing
#
# Scores drawn by chance tell what to expect of no idea at all. The report has lists drawn by chance as well, traded as these are.

# %%
rng = np.random.default_rng(7)
chance = reversal.copy()
chance[:] = rng.normal(size=chance.shape)
qe.ic_summary(chance, labels)

# %% [markdown]
# ## What was traded
#
# Every order, and why one did not fill. To trade the same scores by another strategy: `mine.backtest(strategy=...)`; to lay runs beside
# each other: `qe.compare([mine, other])`.

# %%
mine.tables["backtest/orders"].tail()
