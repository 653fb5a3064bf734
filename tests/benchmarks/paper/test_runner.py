"""The runner on a cluster of two nodes, with a worker that is killed in the middle of its training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.synthetic.sample import SampleMarket
from tests.interpreter import Interpreter

ROOT = Path(__file__).parents[3]
EPOCHS = 6
# Reports without a chart: those of four runs take longer to draw than the runs themselves.
SHORT_REPORTS = """
from benchmarks.grid.plan import Grid
made = Grid.__init__
def short(self, *given):
    made(self, *given)
    sections = [{"class": "qlib_ext.report.sections.provenance.Provenance"}]
    self.records["qlib_ext.records.report.ReportRecord"] = {"sections": sections}
Grid.__init__ = short
"""
# A cluster of two nodes on this machine, a CPU each, and the command on it.
ON_TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
from benchmarks.paper.__main__ import main
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
try:
    status = main([*sys.argv[1:], "--address", cluster.address])
finally:
    cluster.shutdown()
sys.exit(status)
"""
ON_THIS_MACHINE = """
import sys
from benchmarks.paper.__main__ import main
sys.exit(main())
"""


def environment() -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
    return {**inherited, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


def command(work: Path, market: Path, *methods: str) -> list[str]:
    given = [
        "run",
        "--work",
        str(work),
        "--runs",
        str(work / "runs"),
        "--store",
        str(market),
        "--universes",
        "CSI300",
        "--backbones",
        "LSTM",
    ]
    budget = ["--seeds", "0", "--epochs", str(EPOCHS), "--hidden-size", "8"]
    return [*given, *budget, "--methods", *methods]


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def kill_the_worker(work: Path, method: str, process: subprocess.Popen[str]) -> int:
    """Kill the process that trains `method` as soon as it has kept a checkpoint; its id."""
    until = time.monotonic() + 900  # of a busy machine; an idle one takes seconds
    while time.monotonic() < until and process.poll() is None:
        locks = [*(work / "locks").glob(f"* {method} *.lock")]
        kept = [*(work / "checkpoints").rglob("*.safetensors")]
        identities = [path.parent for path in kept]
        if locks and identities:
            log = work / "logs" / f"{locks[0].stem}.log"
            if "epoch 1: loss" in log.read_text():
                pid = int(locks[0].read_text())
                os.kill(pid, signal.SIGKILL)
                return pid
        time.sleep(0.02)
    pytest.fail(f"{method} kept no checkpoint: {process.communicate()[0]}")


@dataclass(frozen=True)
class Ran:
    """Two runs on two nodes, one of them killed, and the same run undisturbed in another place."""

    work: Path
    market: Path
    output: str
    killed: int
    undisturbed: Path

    def runs(self, work: Path | None = None) -> pd.DataFrame:
        client = mlflow.MlflowClient(f"sqlite:///{(work or self.work) / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("paper")
        rows = [
            {"name": run.info.run_name, "status": run.info.status, **run.data.metrics, "id": run.info.run_id}
            for run in client.search_runs([experiment.experiment_id])
        ]
        return pd.DataFrame(rows)

    def history(self, work: Path, name: str) -> pd.DataFrame:
        client = mlflow.MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
        table = self.runs(work)
        run = table[(table["name"] == name) & (table["status"] == "FINISHED")].iloc[0]
        history = pd.read_parquet(client.download_artifacts(run["id"], "training/history.parquet"))
        return history.loc[:, ~history.columns.str.startswith("seconds/")]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("runner")
    market = folder / "market"
    SampleMarket(seed=3, stocks=30, start="2014-03-03", end="2017-06-30").write(market)
    work, undisturbed = folder / "work", folder / "undisturbed"
    process = start(
        "-c", SHORT_REPORTS + ON_TWO_NODES, *command(work, market, "STL", "MiM-StocR"), folder=folder
    )
    killed = kill_the_worker(work, "MiM-StocR", process)
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output
    asked = command(undisturbed, market, "MiM-StocR")
    plain = start("-c", SHORT_REPORTS + ON_THIS_MACHINE, *asked, folder=folder)
    assert plain.wait(timeout=900) == 0, plain.communicate()[0]
    return Ran(work, market, output, killed, undisturbed)


class TestKilledWorker:
    def test_every_run_is_finished_once(self, ran: Ran) -> None:
        finished = ran.runs().query("status == 'FINISHED'")
        assert sorted(name.split()[2] for name in finished["name"]) == ["MiM-StocR", "STL"]
        assert "2 runs asked for, 0 finished before, 2 to run" in ran.output

    def test_the_run_of_the_killed_worker_is_closed(self, ran: Ran) -> None:
        assert [*ran.runs().query("status != 'FINISHED'")["status"]] == ["KILLED"]

    def test_another_worker_took_it_up_from_its_checkpoint(self, ran: Ran) -> None:
        (log,) = (ran.work / "logs").glob("* MiM-StocR *.log")
        assert "RESUME: taking up" in log.read_text()
        (lock,) = (ran.work / "locks").glob("* MiM-StocR *.lock")
        assert int(lock.read_text()) != ran.killed

    def test_nothing_is_lost_or_doubled(self, ran: Ran) -> None:
        (name,) = ran.runs(ran.undisturbed)["name"]
        disturbed, plain = ran.history(ran.work, name), ran.history(ran.undisturbed, name)
        assert [*disturbed["epoch"]] == [*range(EPOCHS)]
        pd.testing.assert_frame_equal(disturbed, plain, check_exact=True)
        metrics = []
        for work in (ran.work, ran.undisturbed):
            table = ran.runs(work)
            metrics.append(table[(table["name"] == name) & (table["status"] == "FINISHED")].iloc[0])
        shared = [
            key
            for key in metrics[0].index.intersection(metrics[1].index)
            if not key.startswith(("seconds", "id"))
        ]
        assert "RankIC" in shared
        assert metrics[0][shared].equals(metrics[1][shared])


class TestKept:
    def test_the_test_curve_ends_at_the_figures_of_the_run(self, ran: Ran) -> None:
        """The best epoch's weights, measured afterwards, are what the records measured; the other epochs' are not."""
        (folder,) = (ran.work / "runs").glob("*MiM-StocR*")
        said = json.loads((folder / "run.json").read_text())
        epochs = pd.read_csv(folder / "epochs.csv").set_index("epoch")
        assert [*epochs.index] == [*range(EPOCHS)]
        same = np.isclose(epochs["test/rank_ic"], said["metrics"]["RankIC"], atol=1e-5)
        assert [*epochs.index[same]] == [said["best_epoch"]]

    def test_no_path_of_this_machine_is_in_it(self, ran: Ran) -> None:
        for file in (ran.work / "runs").glob("*/run.json"):
            assert str(ran.work) not in file.read_text()
            assert str(ran.market) not in file.read_text()


class TestCluster:
    def test_the_runs_were_on_two_nodes(self, ran: Ran) -> None:
        nodes = [
            line.rsplit(" on node ", 1)[1].split()[0]
            for line in ran.output.splitlines()
            if " on node " in line
        ]
        assert len(nodes) == 2
        assert len(set(nodes)) == 2

    def test_an_address_without_a_cluster_is_one_message(
        self, ran: Ran, interpreter: Interpreter, tmp_path: Path
    ) -> None:
        asked = [*command(tmp_path / "w", ran.market, "EW"), "--address", "127.0.0.1:1"]
        done = interpreter("-m", "benchmarks.paper", *asked, cwd=tmp_path, env=environment())
        assert done.returncode == 2
        assert "error: no Ray cluster at '127.0.0.1:1'" in done.stdout + done.stderr


class TestAgain:
    def test_what_is_finished_is_not_run_again(self, ran: Ran, interpreter: Interpreter) -> None:
        before = ran.runs()
        asked = command(ran.work, ran.market, "STL", "MiM-StocR")
        done = interpreter("-m", "benchmarks.paper", *asked, cwd=ran.work, env=environment())
        assert done.returncode == 0
        assert "2 runs asked for, 2 finished before, 0 to run" in done.stdout + done.stderr
        assert len(ran.runs()) == len(before)

    def test_the_report_stands_beside_the_papers_figures(
        self, ran: Ran, interpreter: Interpreter, tmp_path: Path
    ) -> None:
        plan = json.loads((ran.work / "plan.json").read_text())
        asked = [{**plan[0], "name": "CSI300 LSTM EW seed 0 00000000", "method": "EW"}]
        (ran.work / "plan.json").write_text(json.dumps(plan + asked))
        out = tmp_path / "paper"
        done = interpreter(
            *("-m", "benchmarks.paper", "report", "--work", str(ran.work)),
            *("--runs", str(ran.work / "runs"), "--out", str(out)),
            cwd=tmp_path,
            env=environment(),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        table = pd.read_csv(out / "table1_1_CSI300.csv")
        finished = ran.runs().query("status == 'FINISHED'")
        for method, published in {"STL": "0.0586 (1.7)", "MiM-StocR": "0.0604 (1.4)"}.items():
            row = table[(table["method"] == method) & (table["label"] == "tradable")].iloc[0]
            ours = finished[finished["name"].str.contains(f" {method} ")].iloc[0]
            assert float(row["RankIC"]) == pytest.approx(ours["RankIC"], abs=5e-5)
            assert row["paper's RankIC"] == published
        page = (out / "README.md").read_text()
        assert "Asked for and not finished: 1" in page
        assert "CSI300 LSTM EW seed 0" in page
        for kind in ("figure3", "figure4", "figure5", "balance"):
            (picture,) = out.glob(f"{kind}_*.png")
            assert picture.read_bytes().startswith(b"\x89PNG")
        significance = pd.read_csv(out / "significance.csv")
        assert {*significance["against"]} == {"STL"}
        assert 0 <= significance["SPA p"].iloc[0] <= 1
