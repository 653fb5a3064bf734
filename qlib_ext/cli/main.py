"""The command line put together: which command stands where, and how it ends."""

from __future__ import annotations

import sys
import traceback

from qlib_ext.checks import UserError, foreign_error
from qlib_ext.cli.answer import Commands, wants_json, write
from qlib_ext.cli.backtest import backtest
from qlib_ext.cli.bundle import bundle
from qlib_ext.cli.check import check as check_workflow
from qlib_ext.cli.compare import compare
from qlib_ext.cli.daily import daily
from qlib_ext.cli.data.check import check
from qlib_ext.cli.data.download import download
from qlib_ext.cli.data.fetch import fetch
from qlib_ext.cli.data.import_bars import import_bars
from qlib_ext.cli.data.info import info
from qlib_ext.cli.data.sample import sample
from qlib_ext.cli.data.side_data import side_data
from qlib_ext.cli.data.universe import universe
from qlib_ext.cli.data.update import update
from qlib_ext.cli.doctor import doctor
from qlib_ext.cli.ensemble import ensemble
from qlib_ext.cli.evaluate import evaluate
from qlib_ext.cli.factors import factors
from qlib_ext.cli.index import index
from qlib_ext.cli.init import init, quickstart
from qlib_ext.cli.ledger import ledger
from qlib_ext.cli.lookahead import lookahead
from qlib_ext.cli.recommend import recommend
from qlib_ext.cli.relocate import relocate
from qlib_ext.cli.report import report
from qlib_ext.cli.search import search
from qlib_ext.cli.send import send
from qlib_ext.cli.soup import soup
from qlib_ext.cli.verify import verify
from qlib_ext.config.renamed import check_command
from qlib_ext.masking import mask_logs, masked
from qlib_ext.terminal import quiet_libraries, say

app = Commands(
    help="Backtests of multi-task stock recommendation on Qlib.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data = Commands(help="Market data on disk.", no_args_is_help=True)
app.add_typer(data, name="data")

app.command("init")(init)
app.command("quickstart")(quickstart)
app.command("doctor")(doctor)
app.command("check")(check_workflow)
app.command("lookahead")(lookahead)
app.command("evaluate")(evaluate)
app.command("backtest")(backtest)
app.command("soup")(soup)
app.command("ensemble")(ensemble)
app.command("factors")(factors)
app.command("compare")(compare)
app.command("recommend")(recommend)
app.command("daily")(daily)
app.command("send")(send)
app.command("report")(report)
app.command("relocate")(relocate)
app.command("ledger")(ledger)
app.command("index")(index)
app.command("bundle")(bundle)
app.command("verify")(verify)
app.command("search")(search)

data.command("check")(check)
data.command("download")(download)
data.command("fetch")(fetch)
data.command("import")(import_bars)
data.command("info")(info)
data.command("sample")(sample)
data.command("side-data")(side_data)
data.command("universe")(universe)
data.command("update")(update)


@app.callback()
def _root() -> None:
    """Begin each command: what libraries say of each other stays off the terminal."""
    quiet_libraries()
    mask_logs("qlib", "qlib_ext", "mlflow")


def main() -> None:
    """Run the command line; what the user or a library got wrong becomes one line on stderr and exit status 2.

    With `--json` the document is `{"error": ...}` then.
    """
    try:
        check_command(sys.argv[1:])
        app(prog_name="qlib-ext")
    except Exception as error:
        said = str(error) if isinstance(error, UserError) else foreign_error(error)
        if wants_json():
            write({"error": masked(said or f"{type(error).__name__}: {error}")})
        if said is None:
            say(masked("".join(traceback.format_exception(error))).rstrip(), err=True, lines=True)
            raise SystemExit(1) from error
        say(f"error: {masked(said)}", err=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
