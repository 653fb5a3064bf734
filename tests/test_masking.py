from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from qlib_ext.masking import masked

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
