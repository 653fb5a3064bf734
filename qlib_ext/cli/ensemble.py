"""`qlib-ext ensemble`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.finished import of_run
from qlib_ext.cli.options import Name, NDrop, Portfolio, Store, TopK, TrackingUri

HOUSE = "qlib_ext.model.combiners"


def ensemble(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs (id, first digits of it, name, or experiment for all its finished runs); days and portfolio are the first's.",
            show_default=False,
        ),
    ],
    combine: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help=f"Dotted class of a combiner; of those in {HOUSE} `ic_weights.ICWeights` will do. By default the mean of z-scores.",
            show_default=False,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Argument of the combiner, such as ridge=0.5.", show_default=False
        ),
    ] = None,
    learn_by: Annotated[
        str, typer.Option(metavar="LABEL", help="Raw label that a combiner learns by, on the validation.")
    ] = "RETURN",
    portfolio: Portfolio = None,
    topk: TopK = None,
    n_drop: NDrop = None,
    store: Store = None,
    name: Name = None,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Combine the scores of several runs into a run of its own, with the whole report. Nothing is trained."""
    from qlib_ext.terminal import quiet_imports  # all here, so that `qlib-ext --help` stays quick

    with quiet_imports():
        from qlib_ext.recommend.trained import TrainedRun
        from qlib_ext.workflow import scored
    from qlib_ext.tracking.runs import connect, find_runs, use

    described = _combiner(combine, option)
    use(tracking_uri)
    client = connect()
    found = find_runs(client, runs)
    if len(found) < 2:
        raise UserError(f"an ensemble must have two runs or more, found {len(found)}: {', '.join(runs)}")
    traded = None if portfolio is None else scored.read_portfolio(portfolio)
    with tempfile.TemporaryDirectory() as folder:
        first = TrainedRun.open(client, found[0], Path(folder), learned=False)
        region = first.region
    named = [str(run.info.run_name) for run in found]
    members = {
        name if named.count(name) == 1 else f"{name} ({run.info.run_id[:8]})": run.info.run_id
        for name, run in zip(named, found, strict=True)
    }
    task = scored.of_runs(first.config, members, described, traded, label=learn_by, topk=topk, n_drop=n_drop)
    root = store or first.artifacts.tags.get("store")
    if root is None:
        raise UserError(
            f"the run {first.run_id} does not say where its data lay: name the store by `--store DIR`"
        )
    return of_run(scored.run_task(task, Path(root), region, name or "ensemble"), runs)


def _combiner(path: str | None, options: list[str] | None) -> dict[str, Any] | None:
    """`{class, kwargs}` of what the command names; None for the default."""
    import yaml

    from qlib_ext.cli.options import pairs

    given = {
        key: yaml.safe_load(value)
        for key, value in pairs("--option", options, "ridge=0.5", empty=False).items()
    }
    if path is None:
        if given:
            raise UserError(f"`--option` is for a combiner that `--combine` names, found {', '.join(given)}")
        return None
    return {"class": path if path.count(".") > 1 else f"{HOUSE}.{path}", "kwargs": given}
