from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from qlib_ext.masking import mask_logs, masked

# What a password may hold in a URI as people type it: any printable character but a space.
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


class TestMasked:
    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("http://ann:secret@host:5000/x", "http://***@host:5000/x"),
            (
                "failed: postgresql+psycopg2://ann:se/c@ret@host/db (x)",
                "failed: postgresql+psycopg2://***@host/db (x)",
            ),
            ("https://token@host", "https://***@host"),
            (
                "postgresql://host/db?user=ann&password=secret&x=1",
                "postgresql://host/db?user=ann&password=***&x=1",
            ),
            ("http://host/?TOKEN=abc", "http://host/?TOKEN=***"),
            ("http://a:b@c and http://d:e@f", "http://***@c and http://***@f"),
        ],
    )
    def test_who_and_password_are_hidden(self, text: str, shown: str) -> None:
        assert masked(text) == shown

    @pytest.mark.parametrize(
        "text",
        [
            "sqlite:///mlflow.db",
            "http://localhost:5000",
            "http://[::1]:5000/#/experiments/1",
            "ann@host wrote",
            "",
        ],
    )
    def test_text_without_a_password_stays(self, text: str) -> None:
        assert masked(text) == text

    @given(WORDS)
    def test_no_password_gets_through(self, password: str) -> None:
        whole = f"http://ann:{password}@the-host:5000/path"
        assert masked(f"cannot reach {whole} today") == "cannot reach http://***@the-host:5000/path today"

    @given(WORDS)
    def test_nor_one_that_is_quoted_for_a_uri(self, password: str) -> None:
        uri = URL.create("postgresql", "ann", password, "host", 5432, "mlflow")
        assert masked(uri.render_as_string(hide_password=False)) == "postgresql://***@host:5432/mlflow"

    @given(st.text(max_size=60))
    def test_twice_is_once(self, text: str) -> None:
        assert masked(masked(text)) == masked(text)


class TestSecretsOfTheEnvironment:
    @pytest.mark.parametrize(
        "name",
        [
            "MLFLOW_TRACKING_PASSWORD",
            "MLFLOW_TRACKING_TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "TUSHARE_TOKEN",
            "MY_API_KEY",
            "DB_PASSWD",
            "GOOGLE_CREDENTIALS",
            "db_secret",
        ],
    )
    def test_their_values_are_hidden_wherever_they_stand(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, "hunter2-hunter2")
        assert masked("said hunter2-hunter2, twice: hunter2-hunter2") == "said ***, twice: ***"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PWD", "/home/ann/project"),
            ("TOKENIZERS_PARALLELISM", "parallel"),
            ("GPG_KEY", "a-fingerprint"),
            ("MLFLOW_TRACKING_USERNAME", "annabel"),
            ("MY_TOKEN", "short"),
        ],
    )
    def test_other_values_stay(self, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, value)
        assert masked(f"in {value} it is") == f"in {value} it is"

    def test_one_that_holds_another_is_hidden_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("A_TOKEN", "abcdefgh")
        monkeypatch.setenv("B_TOKEN", "abcdefghijkl")
        assert masked("abcdefghijkl") == "***"


class TestLogs:
    @pytest.fixture
    def said(self) -> Iterator[Callable[[], str]]:
        stream, log = io.StringIO(), logging.getLogger("a.log.of.the.test")
        handler = logging.StreamHandler(stream)
        log.addHandler(handler)
        log.propagate = False
        mask_logs(log.name)
        mask_logs(log.name)
        assert len(handler.filters) == 1
        yield stream.getvalue
        log.removeHandler(handler)

    def test_messages_and_their_arguments_are_masked(self, said: Callable[[], str]) -> None:
        logging.getLogger("a.log.of.the.test").warning("reach %s", {"uri": "http://ann:secret@host"})
        assert said() == "reach {'uri': 'http://***@host'}\n"

    def test_so_is_an_exception(self, said: Callable[[], str]) -> None:
        try:
            raise RuntimeError("no answer of postgresql://ann:secret@host/db")
        except RuntimeError:
            logging.getLogger("a.log.of.the.test").exception("it failed")
        assert "postgresql://***@host/db" in said()
        assert "secret" not in said()

    def test_what_holds_no_secret_is_left_as_it_is(self, said: Callable[[], str]) -> None:
        logging.getLogger("a.log.of.the.test").warning("%d of %d", 3, 4)
        assert said() == "3 of 4\n"
