from __future__ import annotations

import mlflow.exceptions
import pytest
import requests
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from qlib_ext.checks import UserError
from qlib_ext.tracking import availability
from qlib_ext.tracking.availability import Backoff, is_unavailable, wait_seconds


class TestUnavailable:
    @pytest.mark.parametrize(
        ("error", "away"),
        [
            (requests.ConnectionError(), True),
            (requests.Timeout(), True),
            (mlflow.exceptions.MlflowException("API request failed"), True),
            (mlflow.exceptions.MlflowException("busy", TEMPORARILY_UNAVAILABLE), True),
            (mlflow.exceptions.MlflowException("no", INVALID_PARAMETER_VALUE), False),
            (ConnectionRefusedError(), True),
            (FileNotFoundError(), False),
        ],
    )
    def test_who_is_unavailable(self, error: Exception, away: bool) -> None:
        assert is_unavailable(error) is away

    @pytest.mark.parametrize(("status", "away"), [(503, True), (429, True), (500, True), (403, False)])
    def test_by_the_answer(self, status: int, away: bool) -> None:
        reply = requests.Response()
        reply.status_code = status
        assert is_unavailable(requests.HTTPError(response=reply)) is away

    @pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan", "1e9"])
    def test_the_wait_must_be_seconds(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_WAIT_SECONDS", text)
        with pytest.raises(UserError, match=r"MLFLOW_WAIT_SECONDS.*from 0 to 604,800"):
            wait_seconds()


class TestBackoff:
    def test_the_pause_doubles_up_to_a_minute(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [100.0]
        monkeypatch.setattr(availability.time, "monotonic", lambda: now[0])
        backoff = Backoff()
        assert backoff.due
        pauses = []
        for _ in range(7):
            backoff.fail()
            began = now[0]
            while not backoff.due:
                now[0] += 1
            pauses.append(now[0] - began)
        assert pauses == [2, 4, 8, 16, 32, 60, 60]

    def test_it_hurries_where_asked_and_forgets_where_all_is_well(self) -> None:
        backoff = Backoff()
        backoff.fail()
        assert backoff.failed
        assert not backoff.due
        backoff.hurry()
        assert backoff.due
        backoff.succeed()
        assert not backoff.failed
