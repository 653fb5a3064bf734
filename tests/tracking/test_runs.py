from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from qlib_ext.checks import UserError
from qlib_ext.tracking.runs import checked_uri, connect, disable_telemetry, find_run, find_runs

ROOT = Path(__file__).parents[2]
ODD = ["it's", 'say "x"', "back\\slash", "100%", "a_b", "日本", "`x`; drop table runs", "<b>bold</b>"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def client(home: Path) -> MlflowClient:
    """Two finished runs and a failed one in `main`, runs with odd names in `odd`, none finished in `open`."""
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    main = client.create_experiment("main")
    for k, (name, status) in enumerate([("one", "FINISHED"), ("two", "FINISHED"), ("three", "FAILED")]):
        run = client.create_run(main, run_name=name, start_time=1000 + k)
        client.set_terminated(run.info.run_id, status)
    odd = client.create_experiment("odd")
    for k, name in enumerate(ODD):
        client.set_terminated(client.create_run(odd, run_name=name, start_time=2000 + k).info.run_id)
    for _ in range(2):
        client.set_terminated(client.create_run(odd, run_name="twin").info.run_id)
    gone = client.create_run(odd, run_name="gone")
    client.delete_run(gone.info.run_id)
    open_ = client.create_experiment("open")
    client.create_run(open_, run_name="training")
    client.delete_experiment(client.create_experiment("deleted"))
    return client


def name(run: Run) -> str:
    return run.info.run_name


class TestFindRun:
    def test_by_id_and_by_its_first_digits(self, client: MlflowClient) -> None:
        run = find_run(client, "one")
        assert name(find_run(client, run.info.run_id)) == "one"
        assert name(find_run(client, run.info.run_id[:12])) == "one"

    def test_an_experiment_is_its_newest_finished_run(self, client: MlflowClient) -> None:
        assert name(find_run(client, "main")) == "two"

    def test_a_run_that_failed_is_found_by_its_own_name(self, client: MlflowClient) -> None:
        assert find_run(client, "three").info.status == "FAILED"

    @pytest.mark.parametrize("wanted", ODD)
    def test_odd_names(self, client: MlflowClient, wanted: str) -> None:
        assert name(find_run(client, wanted)) == wanted

    def test_a_name_is_not_a_pattern(self, client: MlflowClient) -> None:
        with pytest.raises(UserError, match="no run or experiment `a%`"):
            find_run(client, "a%")
        with pytest.raises(UserError, match="no run or experiment `on_`"):
            find_run(client, "on_")

    def test_too_few_digits_of_an_id(self, client: MlflowClient) -> None:
        with pytest.raises(UserError, match="no run or experiment"):
            find_run(client, find_run(client, "one").info.run_id[:3])

    def test_digits_that_two_runs_share(self, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qlib_ext.tracking.runs.SHORTEST_PREFIX", 1)
        ids = [run.info.run_id for run in find_runs(client, ["main", "odd"], finished=False)]
        shared = next(digit for digit in "0123456789abcdef" if sum(i.startswith(digit) for i in ids) > 1)
        with pytest.raises(UserError, match=f"runs begin with `{shared}`: give more digits"):
            find_run(client, shared)

    def test_runs_of_one_name(self, client: MlflowClient) -> None:
        with pytest.raises(
            UserError, match=r"2 runs are called `twin`: name one by its id: [0-9a-f]{32} \(twin\)"
        ):
            find_run(client, "twin")

    def test_a_near_name_is_offered(self, client: MlflowClient) -> None:
        with pytest.raises(UserError, match=r"no run or experiment `mian` in sqlite.*did you mean main"):
            find_run(client, "mian")

    def test_what_was_deleted_is_said_to_be(self, client: MlflowClient) -> None:
        with pytest.raises(
            UserError, match=r"the run `gone` was deleted: `mlflow runs restore --run-id [0-9a-f]{32}`"
        ):
            find_run(client, "gone")
        with pytest.raises(
            UserError, match=r"`deleted` was deleted: `mlflow experiments restore --experiment-id \d+`"
        ):
            find_run(client, "deleted")

    def test_an_experiment_without_a_finished_run(self, client: MlflowClient) -> None:
        with pytest.raises(UserError, match="`open` has no finished run, only 1 RUNNING"):
            find_run(client, "open")
        with pytest.raises(UserError, match=r"`Default` has no finished run$"):
            find_run(client, "Default")

    def test_an_empty_name(self, client: MlflowClient) -> None:
        with pytest.raises(UserError, match="must have a name"):
            find_run(client, " ")


class TestFindRuns:
    def test_all_finished_runs_of_an_experiment_the_oldest_first(self, client: MlflowClient) -> None:
        assert [*map(name, find_runs(client, ["main"]))] == ["one", "two"]

    def test_unfinished_ones_on_request(self, client: MlflowClient) -> None:
        assert [*map(name, find_runs(client, ["main"], finished=False))] == ["one", "two", "three"]

    def test_each_run_once_in_the_order_asked_for(self, client: MlflowClient) -> None:
        two = find_run(client, "two").info.run_id
        assert [*map(name, find_runs(client, [two, "main", "three"]))] == ["two", "one", "three"]

    def test_runs_of_one_name_are_all_meant(self, client: MlflowClient) -> None:
        assert [*map(name, find_runs(client, ["twin"]))] == ["twin", "twin"]

    def test_more_runs_than_a_page(self, client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("qlib_ext.tracking.runs._PAGE", 3)
        assert len(find_runs(client, ["odd"])) == len(ODD) + 2


class TestConnect:
    def test_by_uri_environment_or_working_directory(
        self, client: MlflowClient, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.chdir(home)
        assert name(find_run(connect(), "one")) == "one"
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match="no MLflow store: MLFLOW_TRACKING_URI is not set"):
            connect()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home}/mlflow.db")
        assert name(find_run(connect(), "one")) == "one"
        with pytest.raises(UserError, match="no MLflow database at"):
            connect("sqlite:///other.db")
        assert not [*tmp_path.iterdir()], "looking must not make a database"

    @pytest.mark.parametrize("uri", ["mlruns", "file:mlruns"])
    def test_the_file_store_is_refused(self, uri: str) -> None:
        with pytest.raises(UserError, match="MLflow refuses its file store"):
            connect(uri)

    def test_a_server_that_is_away_is_said_at_once_and_without_its_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(UserError, match="does not answer") as error:
            connect(f"http://ann:secret@127.0.0.1:{port}")
        assert "secret" not in str(error.value)
        assert str(port) in str(error.value)
        assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ

    def test_a_database_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "mlflow.db").write_text("not a database, and long enough to be seen as none " * 20)
        with pytest.raises(UserError, match="must be a SQLite database of MLflow's, found none"):
            connect(f"sqlite:///{tmp_path}/mlflow.db")

    def test_an_unknown_kind_of_database(self) -> None:
        with pytest.raises(UserError, match="does not answer"):
            connect("oracle9://ann:secret@host/db")


class TestUri:
    def test_a_password_in_a_refused_uri_is_hidden(self) -> None:
        with pytest.raises(UserError) as error:
            checked_uri("file://ann:secret@host/mlruns")
        assert "secret" not in str(error.value)


def test_qlib_is_not_needed_to_find_runs() -> None:
    code = "import sys, qlib_ext.tracking.runs; sys.exit('qlib' in sys.modules or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


class TestTelemetry:
    @pytest.mark.parametrize(("given", "expected"), [(None, "true"), ("false", "false")])
    def test_it_is_off_unless_asked_for(
        self, given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if given is None:
            monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
        else:
            monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", given)
        disable_telemetry()
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == expected
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # what the manager set is undone with the test
