"""The package for a notebook: what the commands do, as functions of objects, with pictures and tables inline.

`import qlib_ext.api as qe` is all that a notebook needs beside the classes of models and strategies (docs/python.md). It
imports neither Qlib nor torch before something asks for them.
"""

from qlib_ext.api.agreement import ic, ic_summary, precision_at, rank_ic
from qlib_ext.api.comparison import Comparison, compare
from qlib_ext.api.dataset import Dataset
from qlib_ext.api.picture import Picture
from qlib_ext.api.report import Report
from qlib_ext.api.run import Run
from qlib_ext.api.scores import backtest, evaluate
from qlib_ext.api.store import Store
from qlib_ext.api.training import train
from qlib_ext.workflow.starter import shipped_workflow as workflow

__all__ = [
    "Comparison",
    "Dataset",
    "Picture",
    "Report",
    "Run",
    "Store",
    "backtest",
    "compare",
    "evaluate",
    "ic",
    "ic_summary",
    "precision_at",
    "rank_ic",
    "train",
    "workflow",
]
