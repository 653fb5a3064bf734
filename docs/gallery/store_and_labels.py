# %% [markdown]
# # A store, its stocks and its labels
#
# What lies in a market, and what a model would be shown of one day. Nothing is trained here.

# %%
import qlib_ext.api as qe
from qlib_ext.market.synthetic.sample import SampleMarket

# %% [markdown]
# A market made up from a seed, so that this runs anywhere: 24 invented stocks on real trading days. With data of your own,
# leave this line out and name your directory below.

# %%
SampleMarket(seed=3, stocks=24, start="2015-11-02", end="2016-06-30").write("cn")

# %%
store = qe.Store("cn")
store

# %% [markdown]
# ## Who was in the index on a day
#
# Members are those of that day, not today's: a stock that left the index since is there, one that joined later is not.

# %%
members = store.members("csi300", "2016-05-03")
members[:6]

# %% [markdown]
# ## A stock beside its labels
#
# A label is what a model shall foretell. Here it is the return of one day and of five, bought at the close of the day after
# the score: `Ref($close, -2)` is the close two days on.

# %%
store.plot(
    members[0],
    ["Ref($close, -2) / Ref($close, -1) - 1", "Ref($close, -6) / Ref($close, -1) - 1"],
)

# %%
labels = store.labels({"week": "Ref($close, -6) / Ref($close, -1) - 1"}, "csi300")
labels.describe().T

# %% [markdown]
# ## A day as a model sees it
#
# A row is a stock. The columns are the last 60 days of six fields, normalised by the days of training, and the label of the day.

# %%
data = store.dataset("csi300")
day = data.day("2016-05-03")
day.iloc[:5, [0, 1, 2, -2, -1]]
