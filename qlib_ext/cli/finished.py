"""What the commands that make a run answer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from qlib_ext.cli.answer import Answer


def of_run(run_id: str, beside: Sequence[str] = ()) -> Answer:
    """The run, its figures and its report, from the MLflow store of the environment; `beside` what it is to be compared with."""
    from qlib_ext.report.standard import RUNS, report_folder  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.tracking.runs import connect

    client = connect()
    run = client.get_run(run_id)
    experiment = client.get_experiment(run.info.experiment_id).name
    page = RUNS / report_folder(experiment, run_id) / "report.html"
    return Answer(
        {
            "run": run_id,
            "name": run.info.run_name,
            "experiment": experiment,
            "status": run.info.status,
            "metrics": run.data.metrics,
            "report": page.resolve() if page.is_file() else None,
        },
        then=shlex.join(["qlib-ext", "compare", *beside, run_id[:8]])
        if beside
        else f"qlib-ext backtest {run_id[:8]} --portfolio FILE, to trade the same scores otherwise",
    )
