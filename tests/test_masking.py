from __future__ import annotations

import html
import io
import json
import logging
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus, urlencode

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
            ("https://host/x?access_token=abc&n=1", "https://host/x?access_token=***&n=1"),
            ("https://host/blob?sv=2&sig=ab%2Fc%3D&se=3", "https://host/blob?sv=2&sig=***&se=3"),
            ("https://s3/x?X-Amz-Signature=0123&x=1", "https://s3/x?X-Amz-Signature=***&x=1"),
            ("Server=db;UID=ann;PWD=a b;Encrypt=yes", "Server=db;UID=ann;PWD=***;Encrypt=yes"),
            ("Driver={SQL Server};UID=ann;PWD={a;b}", "Driver={SQL Server};UID=ann;PWD={***}"),
            ("host=db user=ann password='a b' dbname=x", "host=db user=ann password='***' dbname=x"),
            ("Data Source=db;Password=secret", "Data Source=db;Password=***"),
            ("AccountName=x;AccountKey=ab/c==;Suffix=y", "AccountName=x;AccountKey=***;Suffix=y"),
            ("PGPASSWORD=abc psql -h db", "PGPASSWORD=*** psql -h db"),
            ("connect(token='abc', port=1)", "connect(token='***', port=1)"),
            ("(password=se,c'r)et)", "(password=***)"),
            ('{"token": "ab\\"c", "day": "2020"}', '{"token": "***", "day": "2020"}'),
            ("{'api_key': 'abc', 'author': 'ann'}", "{'api_key': '***', 'author': 'ann'}"),
            (r'"{\"password\": \"abc\"}"', r'"{\"password\": \"***\"}"'),
            ("Authorization: Bearer abc", "Authorization: ***"),
            ("sent Bearer hunter2-hunter2 twice", "sent Bearer *** twice"),
            ("Basic YW5uOnBhc3M= was refused", "Basic *** was refused"),
            ("X-Api-Key: abc\nHost: db", "X-Api-Key: ***\nHost: db"),
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
            "author=ann path=/x pat=mine key=5",
            "PWD=/home/ann/project OLDPWD=/home/ann",
            "max_tokens=512, token=None, use_auth=True, sig=0.05, token=1",
            "the password: none was given; `token` must be a name, found nothing",
            "bearer certificates, Basic information, Bearer of news",
            "PATH=/usr/bin:/bin; COMPASS=north; BYPASS=northern",
            "{'author': 'ann', 'tokens': 'many'}",
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
            "PGPASSWORD",
            "SMTP_PASS",
            "SSHPASS",
            "GITHUB_PAT",
            "GITHUBTOKEN",
            "githubToken",
            "REGISTRY_AUTH",
            "BASIC_AUTHORIZATION",
            "MYSECRETS",
            "AZURE_STORAGE_KEY",
            "DB_CONNECTION_STRING",
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
            ("MY_TOKEN", "1"),
            ("PATH", "/usr/bin:/bin"),
            ("GIT_AUTHOR_NAME", "annabel"),
            ("XAUTHORITY", "/home/ann/.Xauthority"),
            ("SSH_AUTH_SOCK", "/tmp/agent.1"),
            ("PASSWORD_FILE", "/run/secrets/db"),
            ("COMPASS", "northern"),
            ("AUTH_TYPE", "negotiate"),
            ("USE_AUTH", "enabled"),
            ("DATA_PATH", "/srv/data"),
        ],
    )
    def test_other_values_stay(self, name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(name, value)
        assert masked(f"in {value} it is") == f"in {value} it is"

    @pytest.mark.parametrize(
        "value", ["two\nlines of it, the second long", "a\"b'c\\d", "pass/w rd+ü&<=>", "tail12\n"]
    )
    def test_however_they_are_written(self, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MY_PASS", value)
        bare = value.strip()
        once = json.dumps({"x": bare})
        written = [
            *(value, bare, once, json.dumps(once), json.dumps([bare], ensure_ascii=False)),
            *(repr([bare]), repr(bare.encode()), str({"x": bare}), html.escape(bare)),
            *(
                quote(bare),
                quote(bare, safe=""),
                quote_plus(bare),
                urlencode({"x": bare}),
                quote(bare).lower(),
            ),
        ]
        for text in written:
            shown = masked(f"said {text} twice")
            assert "***" in shown
            assert not any(part in shown for part in ("lines", 'a"b', "c\\d", "rd", "tail12")), (text, shown)

    def test_a_long_line_of_one_is_hidden_alone_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        line = "MIIEvQIBADANBgkqhkiG9w0"
        monkeypatch.setenv("SIGNING_KEY", f"-----BEGIN PRIVATE KEY-----\n{line}\nshort\n")
        assert masked(f"cannot read {line}, it is too short") == "cannot read ***, it is too short"

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

    def test_no_name_begins_a_line_or_moves_the_cursor(self, said: Callable[[], str]) -> None:
        log = logging.getLogger("a.log.of.the.test")
        log.warning("one\ntwo %s", "\x1b[2J")
        log.handle(
            logging.LogRecord("qlib_ext.x", logging.WARNING, "", 0, "run %s", ("a\nwarning: b",), None)
        )
        assert said() == "one\ntwo \\u001b[2J\nrun a\\nwarning: b\n"
