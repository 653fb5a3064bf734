# %% [markdown]
# # A model of objects, trained and traded
#
# The same as a workflow in YAML, made of Python objects: a backbone, a loss, a strategy. What comes out is a run like any
# other, with its tables and its report.

# %%
from functools import partial

import qlib_ext.api as qe
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.model.backbones.lstm import LSTM
from qlib_ext.model.balancers.single_task import SingleTask
from qlib_ext.model.losses.negative_ic import NegativeIC
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.strategy.topk_dropout import TopkDropout

# %% [markdown]
# The market is made up, and small enough for a minute. No figure below says anything of a real one.

# %%
SampleMarket(seed=3, stocks=24, start="2015-11-02", end="2016-06-30").write("cn")
data = qe.Store("cn").dataset("csi300")

# %% [markdown]
# ## The model
#
# One task, called `score`, which ranks the stocks: its label is the return of the dataset, its loss one less the correlation of
# a day. `partial` leaves the sizes of the input to the dataset.

# %%
model = MultiTaskModel(
    partial(LSTM, hidden_size=8),
    {"score": {"label": "RETURN", "loss": NegativeIC()}},
    SingleTask(),
    trainer={"n_epochs": 1, "learning_rate": 0.01},
)

# %% [markdown]
# ## The run
#
# Training, scores, ranking, a backtest by the exchange's rules, a look for leaks, MLflow: one call.

# %%
run = qe.train(model=model, dataset=data, strategy=TopkDropout(topk=4, n_drop=1), name="objects")
run

# %% [markdown]
# ## What it left
#
# Every table of the run by its name, as pandas.

# %%
run.tables["backtest/daily"].tail()

# %%
qe.ic_summary(run.scores, run.labels)

# %% [markdown]
# ## The report
#
# One HTML file, which needs no network and goes by mail.

# %%
run.report()
