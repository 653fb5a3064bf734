from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from qlib_ext.tracking import git


def repository(folder: Path, file: str) -> str:
    """Make a repository with one committed file; its commit."""
    (folder / file).write_text("one\n")
    for command in (
        ["init", "--quiet"],
        ["add", file],
        ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "one"],
    ):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return (git.output("rev-parse", "HEAD", folder=folder) or "").strip()


def test_the_commit_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, elsewhere = tmp_path / "package", tmp_path / "elsewhere"
    package.mkdir()
    elsewhere.mkdir()
    ours, other = repository(package, "__init__.py"), repository(elsewhere, "notes.txt")
    monkeypatch.setattr(git, "PACKAGE", package)
    monkeypatch.chdir(elsewhere)
    assert git.commit() == ours
    (package / "__init__.py").write_text("two\n")
    assert git.commit() == f"{ours} (modified)"
    # installed in an environment, the package is no part of a repository: the working directory says more
    monkeypatch.setattr(git, "PACKAGE", elsewhere)
    assert git.commit() == other


def test_outside_a_repository_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "PACKAGE", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert git.commit() is None
    assert not git.inside_repository()
