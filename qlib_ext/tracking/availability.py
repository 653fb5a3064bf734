"""A server that may be away for a while: whether an error says so, when it is asked again, how long is waited for it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import requests
from mlflow.exceptions import MlflowException

from qlib_ext.checks import UserError, brief

WAIT = "MLFLOW_WAIT_SECONDS"  # environment: how long the end of a run waits for the server
DEFAULT_WAIT_SECONDS = 600.0
LONGEST_WAIT_SECONDS = 7 * 86_400.0  # a week
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two tries
REQUEST_ERRORS = (MlflowException, requests.RequestException)
# A training waits for a request a minute and a half at most, not MLflow's twenty; the environment's own settings come
# first.
TIMEOUTS: Mapping[str, str] = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "120",
}


def set_timeouts() -> None:
    """Set how long a request to MLflow may take, unless the environment says so already."""
    for name, value in TIMEOUTS.items():
        os.environ.setdefault(name, value)


def wait_seconds() -> float:
    """How long the end of a run waits for the server: MLFLOW_WAIT_SECONDS, by default ten minutes."""
    text = os.environ.get(WAIT) or str(DEFAULT_WAIT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise UserError(
            f"`{WAIT}` must be a number of seconds from 0 to {LONGEST_WAIT_SECONDS:,.0f}, found {brief(text)}"
        )
    return seconds


def is_unavailable(error: BaseException) -> bool:
    """Whether an error says that a server does not answer or is not well, so that a later try may go through."""
    if isinstance(error, requests.RequestException):
        response = error.response
        return response is None or response.status_code == 429 or response.status_code >= 500
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code()) == 429 or int(error.get_http_status_code()) >= 500
    return isinstance(error, ConnectionError)


class Backoff:
    """When a server is asked again: after 2 seconds, then after twice as long each time, a minute at most.

    Attributes
    ----------
    failed
        Whether the last try failed.
    """

    def __init__(self) -> None:
        self.succeed()

    @property
    def due(self) -> bool:
        """Whether it is time for the next try."""
        return time.monotonic() >= self._next_try

    def succeed(self) -> None:
        """Note that a try went through."""
        self.failed = False
        self._pause = FIRST_PAUSE
        self._next_try = 0.0

    def fail(self) -> None:
        """Note that a try failed."""
        self.failed = True
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def hurry(self) -> None:
        """Have the next try at once."""
        self._next_try = 0.0
