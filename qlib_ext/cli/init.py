"""`qlib-ext init` and `qlib-ext quickstart`: a folder to begin in, and a first run there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.terminal import say

Folder = Annotated[
    Path,
    typer.Argument(metavar="[DIR]", help="An empty folder, or one to be made.", show_default=False),
]


def init(folder: Folder = Path()) -> Answer:
    """Write the workflows, a README and the sample market's command into an empty folder."""
    from qlib_ext.workflow import starter  # here, so that `qlib-ext --help` stays quick

    starter.begin(folder)
    count = len([*(folder / "workflows").glob("*.yaml")])
    say(f"{folder.absolute()}: {count} workflows and a README, which tells their variables")
    _next(folder, "qlib-ext quickstart .", starter.sample_command())
    return Answer({"folder": folder.absolute(), "workflows": count})


def quickstart(folder: Folder = Path("quickstart")) -> Answer:
    """Run the main workflow on a made-up market: from an empty folder, or that of `init`, to a first report.

    It takes some minutes on two cores, and asks for no network.
    """
    from qlib_ext.market.synthetic.sample import SampleMarket  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.terminal import shown_progress
    from qlib_ext.workflow import starter

    if not starter.is_begun(folder):
        starter.begin(folder)
    market = SampleMarket(**starter.SAMPLE_ARGUMENTS)  # type: ignore[arg-type]
    say(f"The sample market, in {folder / starter.SAMPLE}")
    with shown_progress() as progress:
        market.write(folder / starter.SAMPLE, progress)
    say(f"The main workflow, workflows/{starter.MAIN}, for one epoch")
    report = starter.run_main(folder)
    say()
    say(f"The report: {report}")
    _next(
        folder,
        "mlflow ui --backend-store-uri sqlite:///mlflow.db",
        "qlib-ext compare mimstocr_csi300",
        "qlib-ext recommend --run mimstocr_csi300",
        f"QLIB_DATA=<your Qlib data> qrun workflows/{starter.MAIN}",
    )
    return Answer({"folder": folder.absolute(), "report": report})


def _next(folder: Path, *commands: str) -> None:
    say("Next:")
    for command in [f"cd {folder}"] * (folder.resolve() != Path.cwd()) + [*commands]:
        say(f"  {command}")
