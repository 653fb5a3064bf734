"""The page of licences is that of the pins, and says what the distributions say."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import licences

PAGE = licences.PAGE.read_text(encoding="utf-8")


class TestPage:
    def test_it_has_every_pin_and_no_other(self) -> None:
        found = {name: version for name, (version, _, _) in licences.rows(PAGE).items()}
        assert found == licences.pins(), "run `make licences` in the environment of the pins"

    def test_each_says_what_the_installed_distribution_says(self) -> None:
        wrong = {
            name: (said, own)
            for name, (version, said, _) in licences.rows(PAGE).items()
            if (own := licences.licence(name, version)) not in (None, said)
        }
        assert wrong == {}

    def test_those_that_ask_for_something_are_named_above_all(self) -> None:
        above = PAGE.partition("## All")[0]
        for name in ("ecos", "quadprog"):  # what pyproject.toml warns of
            assert f"| `{name}` |" in above
            assert "GPL" in licences.rows(PAGE)[name][1]
            assert licences.rows(PAGE)[name][2] == "torchjd"
        for name, (_, said, _) in licences.rows(PAGE).items():
            assert (f"| `{name}` |" in above) is bool(licences.COPYLEFT.search(said))

    def test_what_is_not_installed_keeps_its_row_of_the_same_version(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(licences, "pins", lambda: {"kept-thing": "1.0", "newer-thing": "2.0"})
        before = "## All\n\n| `kept-thing` | 1.0 | MIT | fetch |\n| `newer-thing` | 1.0 | MIT | fetch |\n"
        found = licences.rows(licences.page(before, {"core": []}))
        assert found == {
            "kept-thing": ("1.0", "MIT", "fetch"),
            "newer-thing": ("2.0", "unknown", "unknown"),
        }


class TestLicence:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"License-Expression": "MIT OR Apache-2.0", "License": "whatever"}, "MIT OR Apache-2.0"),
            ({"Classifier": ["License :: OSI Approved :: MIT License"]}, "MIT"),
            (
                {"Classifier": ["License :: OSI Approved :: BSD License", "License :: OSI Approved :: Apache Software License"]},
                "BSD or Apache-2.0",
            ),
            ({"Classifier": ["License :: OSI Approved :: GNU General Public License v2 or later (GPLv2+)"]}, "GPL-2.0-or-later"),
            ({"License": "GPLv3"}, "GPL-3.0"),
            ({"License": "MIT License\n\nCopyright"}, "MIT"),
            ({"License": "MPL-2.0 AND MIT"}, "MPL-2.0 AND MIT"),
            ({}, "unknown"),
            ({"License": "ask the author"}, "unknown"),
        ],
    )  # fmt: skip
    def test_where_it_may_stand(
        self, fields: Mapping[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Metadata(dict[str, Any]):
            def get_all(self, name: str) -> Any:
                return self.get(name)

        monkeypatch.setattr(importlib.metadata, "metadata", lambda name: Metadata(fields, Version="1.0"))
        monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
        assert licences.licence("thing", "1.0") == expected
        assert licences.licence("thing", "1.1") is None

    def test_its_file_is_the_last_place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "LICENSE.txt"
        path.write_text(
            "Copyright (c) 2020 nobody\n\nPermission is hereby granted, free of charge, to any person"
        )
        monkeypatch.setattr(
            importlib.metadata,
            "files",
            lambda name: [SimpleNamespace(name=path.name, locate=lambda: path)],
        )
        assert licences._of_file("thing") == "MIT"


def test_what_an_extra_alone_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {
        "base": ["shared>=1", 'solver; extra == "full"'],
        "shared": [],
        "solver": ["shared", 'other; python_version < "3"'],
    }
    monkeypatch.setattr(importlib.metadata, "requires", wanted.__getitem__)
    found = licences.parts({"core": ["base"], "exact": ["base[full]"], "more": ["solver"]})
    assert found == {"base": ["core"], "shared": ["core"], "solver": ["exact", "more"]}
