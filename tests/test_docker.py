"""The image and the compose files, held against the sources, the Makefile and MLflow, without a Docker engine."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "docker" / "Dockerfile"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, with continued lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in filter(None, joined.splitlines()):
        name, _, arguments = line.partition(" ")
        found.append((name, arguments))
    return found


def arguments_of(name: str) -> list[str]:
    return [arguments for found, arguments in instructions() if found == name]


def compose(*names: str) -> dict[str, Any]:
    """The services of compose files, later ones on top of earlier ones, mappings merged."""
    merged: dict[str, Any] = {}
    for name in names:
        document = yaml.safe_load((ROOT / "docker" / name).read_text(encoding="utf-8"))
        for service, settings in document["services"].items():
            into = merged.setdefault(service, {})
            for key, value in settings.items():
                into[key] = {**into.get(key, {}), **value} if isinstance(value, dict) else value
    return merged


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps `path` out of the build: the last pattern that matches decides."""
    result = False
    for pattern in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if not pattern or pattern.startswith("#"):
            continue
        kept, pattern = pattern.startswith("!"), pattern.removeprefix("!")
        if fnmatch.fnmatch(path, pattern):
            result = not kept
    return result


MLFLOW, TRAIN = compose("compose.yaml")["mlflow"], compose("compose.yaml")["train"]


class TestImage:
    def test_it_only_uses_known_instructions(self) -> None:
        known = {"FROM", "RUN", "ENV", "WORKDIR", "ARG", "COPY", "USER", "CMD"}
        assert {name for name, _ in instructions()} <= known

    def test_what_it_copies_exists_and_is_sent_to_the_build(self) -> None:
        for arguments in arguments_of("COPY"):
            *sources, _ = arguments.split()
            for source in sources:
                path = ROOT / source
                assert path.exists(), f"{source} does not exist"
                inside = f"{source}/any.file" if path.is_dir() else source
                assert not ignored(inside), f".dockerignore keeps {source} out"

    @pytest.mark.parametrize(
        "path", [".git/config", ".venv/bin/python", "mlflow.db", "sample_market/calendars/day.txt"]
    )
    def test_the_rest_stays_out(self, path: str) -> None:
        assert ignored(path)

    def test_all_that_installing_needs_is_there_before(self) -> None:
        before, _, _ = DOCKERFILE.read_text(encoding="utf-8").partition("RUN make install")
        for name in ("pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE"):
            assert re.search(rf"^COPY .*\b{re.escape(name)}\b", before, flags=re.MULTILINE)
        assert "COPY qlib_ext/__init__.py" in before  # holds the version

    def test_it_runs_targets_of_the_makefile(self) -> None:
        targets = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, flags=re.MULTILINE))
        called = re.findall(
            r'\bmake"?,? "?([a-z]+)', "\n".join(arguments_of("RUN")[1:] + arguments_of("CMD"))
        )
        assert called == ["install", "backtest"]
        assert set(called) <= targets

    def test_it_uses_a_supported_python(self) -> None:
        assert arguments_of("FROM") == ["python:3.11-slim"]

    def test_it_does_not_run_as_root(self) -> None:
        names = [name for name, _ in instructions()]
        assert arguments_of("USER") == ["trader"]
        assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))

    def test_its_environment_is_the_one_that_make_uses(self) -> None:
        (environment,) = (
            dict(part.split("=", 1) for part in shlex.split(text)) for text in arguments_of("ENV")
        )
        assert environment["VENV"] == "/opt/venv"
        assert environment["PATH"].startswith("/opt/venv/bin:")
        assert re.search(r"^VENV +\?=", MAKEFILE, flags=re.MULTILINE)


class TestCompose:
    @pytest.mark.parametrize("service", [MLFLOW, TRAIN], ids=["mlflow", "train"])
    def test_the_image_is_built_from_our_dockerfile(self, service: dict[str, Any]) -> None:
        context = (ROOT / "docker" / service["build"]["context"]).resolve()
        assert context == ROOT.resolve()
        assert (context / service["build"]["dockerfile"]).samefile(DOCKERFILE)
        declared = {text.partition("=")[0] for text in arguments_of("ARG")}
        assert set(service["build"]["args"]) <= declared

    def test_the_server_takes_its_options(self) -> None:
        assert MLFLOW["command"][:2] == ["mlflow", "server"]
        server = mlflow.cli.cli.get_command(click.Context(mlflow.cli.cli), "server")
        assert server is not None
        options = {name for parameter in server.params for name in parameter.opts}
        given = {option.partition("=")[0] for option in MLFLOW["command"][2:]}
        assert given <= options

    def test_the_server_is_reached_from_this_machine_only(self) -> None:
        assert MLFLOW["ports"] == ["127.0.0.1:5000:5000"]
        assert "ports" not in TRAIN

    def test_the_server_keeps_its_runs_on_a_volume(self) -> None:
        assert MLFLOW["volumes"] == ["mlflow:/mlflow"]
        stores = [
            option for option in MLFLOW["command"] if "store-uri" in option or "artifacts-dest" in option
        ]
        assert len(stores) == 2
        assert all("/mlflow/" in option for option in stores)

    def test_the_server_answers_to_the_name_that_training_calls(self) -> None:
        host = TRAIN["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://")
        assert host.partition(":")[0] in compose("compose.yaml")
        (allowed,) = (option for option in MLFLOW["command"] if option.startswith("--allowed-hosts="))
        assert host in allowed.partition("=")[2].split(",")

    def test_training_waits_until_the_server_is_well(self) -> None:
        assert TRAIN["depends_on"] == {"mlflow": {"condition": "service_healthy"}}
        *command, code = MLFLOW["healthcheck"]["test"]
        assert command == ["CMD", "python", "-c"]
        compile(code, "healthcheck", "exec")

    def test_training_runs_what_the_image_runs(self) -> None:
        assert "command" not in TRAIN
        assert "entrypoint" not in TRAIN

    def test_every_volume_is_declared_and_writable(self) -> None:
        document = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
        mounted = [volume.split(":") for service in (MLFLOW, TRAIN) for volume in service["volumes"]]
        assert {name for name, _ in mounted} == set(document["volumes"])
        owned = arguments_of("RUN")[-1]
        for _, target in mounted:
            assert target.removeprefix("/app/") in owned

    @pytest.mark.parametrize("extra", ["compose.data.yaml", "compose.gpu.yaml"])
    def test_what_goes_on_top_changes_training_only(self, extra: str) -> None:
        assert set(compose(extra)) == {"train"}
        assert set(compose("compose.yaml", extra)) == {"mlflow", "train"}

    def test_real_data_are_mounted_where_training_looks(self) -> None:
        train = compose("compose.data.yaml")["train"]
        (volume,) = train["volumes"]
        assert volume.endswith(f":{train['environment']['QLIB_DATA']}:ro")
