from __future__ import annotations

from qlib_ext.tracking.parameters import parameters, without_passwords


def test_a_name_that_mlflow_would_refuse_is_cut_and_told_from_others() -> None:
    first, second = parameters({"record": {"a" * 300: {"x": 1, "y": 2}}})
    assert (first.value, second.value) == ("1", "2")
    assert first.key != second.key
    assert max(len(first.key), len(second.key)) == 250
    assert first.key.startswith("record.aaaa")


def test_what_stands_under_the_name_of_a_secret_is_hidden() -> None:
    config = {
        "feed": {
            "password": "abc",
            "author": "ann",
            "use_auth": True,
            "token": None,
            "low_pass": 5,
            "n": [{"api_key": "x"}],
        }
    }
    assert without_passwords(config) == {
        "feed": {
            "password": "***",
            "author": "ann",
            "use_auth": True,
            "token": None,
            "low_pass": 5,
            "n": [{"api_key": "***"}],
        }
    }
    shown = {param.key: param.value for param in parameters(config)}
    assert (shown["feed.password"], shown["feed.author"], shown["feed.token"]) == ("***", "ann", "None")
    assert (shown["feed.use_auth"], shown["feed.low_pass"]) == ("True", "5")
    assert shown["feed.n.0.api_key"] == "***"


def test_a_password_of_digits_is_hidden_which_yaml_reads_as_a_number() -> None:
    config = {"feed": {"password": 12345678, "seed": 12345678, "max_token": 512}}
    assert without_passwords(config) == {"feed": {"password": "***", "seed": 12345678, "max_token": 512}}
    shown = {param.key: param.value for param in parameters(config)}
    assert shown == {"feed.password": "***", "feed.seed": "12345678", "feed.max_token": "512"}
