"""The image and the compose files, held against the sources, the Makefile and MLflow, without a Docker engine."""

from __future__ import annotations

import configparser
import fnmatch
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import mlflow.environment_variables
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
        for name in ("pyproject.toml", "setup.py", "constraints.txt", "Makefile", "README.md", "LICENSE"):
            assert re.search(rf"^COPY .*\b{re.escape(name)}\b", before, flags=re.MULTILINE)
        assert "COPY qlib_ext/__init__.py" in before  # holds the version

    def test_it_runs_targets_of_the_makefile(self) -> None:
        targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, flags=re.MULTILINE))
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


class TestRehearsal:
    def rehearse(self, *words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ROOT / "docker" / "rehearse.py", *words]
        return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)

    def test_it_has_each_step_of_the_image_in_order(self) -> None:
        told = self.rehearse(DOCKERFILE, "--list").stdout.splitlines()
        left_out = [line for line in told if line.startswith("# left out")]
        assert len(left_out) == 5  # three of Debian's packages, a user, an owner
        copied = [name for arguments in arguments_of("COPY") for name in arguments.split()[:-1]]
        assert [line.removeprefix("# COPY ") for line in told if line.startswith("# COPY ")] == copied
        done = [line.removeprefix("# ") for line in told if not line.startswith(("# left out", "# COPY"))]
        assert done == ["make install", "mkdir -p checkpoints markets panel_cache /mlflow", "make backtest"]

    def test_steps_are_done_below_the_folder(self, tmp_path: Path) -> None:
        file = tmp_path / "Dockerfile"
        file.write_text(
            "FROM nothing\nENV A=/opt/a \\\n    PATH=/opt/venv/bin:$PATH\nWORKDIR /app\nCOPY LICENSE ./\n"
            'RUN mkdir -p /mlflow sub && echo "$A $PATH" > sub/told\nUSER nobody\nCMD ["cp", "LICENSE", "sub/copy"]\n'
        )
        folder = tmp_path / "image"
        done = self.rehearse(file, "--folder", folder)
        assert done.returncode == 0, done.stderr
        first, path = (folder / "app" / "sub" / "told").read_text().split()
        assert first == f"{folder}/opt/a"
        assert path.startswith(f"{folder}/opt/venv/bin:")
        assert (folder / "mlflow").is_dir()
        assert (folder / "app" / "sub" / "copy").read_text() == (ROOT / "LICENSE").read_text()
        assert self.rehearse(file, "--folder", folder).returncode == 2  # which is not empty any more

    def test_a_step_that_fails_ends_it(self, tmp_path: Path) -> None:
        (tmp_path / "Dockerfile").write_text("FROM nothing\nRUN false && touch never\n")
        assert self.rehearse(tmp_path / "Dockerfile", "--folder", tmp_path / "image").returncode != 0
        assert not (tmp_path / "image" / "never").exists()


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


TEAM = compose("compose.team.yaml")
ENVIRONMENT = (ROOT / "docker" / ".env.example").read_text(encoding="utf-8")
SECRETS = (
    "POSTGRES_PASSWORD",
    "MLFLOW_AUTH_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "MLFLOW_TRACKING_PASSWORD",
)


def example() -> dict[str, str]:
    """The variables of .env.example."""
    lines = [line for line in ENVIRONMENT.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


class TestTeam:
    def test_it_has_a_database_a_server_and_training(self) -> None:
        assert set(TEAM) == {"db", "mlflow", "train"}
        for service in TEAM.values():
            assert "privileged" not in service
        assert TEAM["mlflow"]["depends_on"] == {"db": {"condition": "service_healthy"}}
        assert TEAM["train"]["depends_on"] == {"mlflow": {"condition": "service_healthy"}}

    def test_no_secret_is_written_down(self) -> None:
        given = example()
        for name in SECRETS:
            assert given[name] == ""
        for path in sorted((ROOT / "docker").iterdir()):
            text = path.read_text(encoding="utf-8")
            for line in text.splitlines():
                if re.match(r"\s*[A-Z_]*(PASSWORD|SECRET_KEY):", line):
                    assert re.search(r": \$\{\w+:\?set it in docker/\.env\}$", line), (
                        f"{path.name}: {line.strip()}"
                    )
        assert "docker/.env" in (ROOT / ".gitignore").read_text(encoding="utf-8")
        assert ignored("docker/.env")
        assert ignored("docker/.env.example")

    def test_what_must_be_set_is_in_the_example(self) -> None:
        text = (ROOT / "docker" / "compose.team.yaml").read_text(encoding="utf-8")
        assert set(re.findall(r"\$\{(\w+):\?", text)) <= set(example())
        assert {"LISTEN", "PORT", "ALLOWED_HOSTS"} <= set(re.findall(r"\$\{(\w+):-", text)) & set(example())

    def test_only_the_server_is_reached_and_from_this_machine_alone(self) -> None:
        assert TEAM["mlflow"]["ports"] == ["${LISTEN:-127.0.0.1}:${PORT:-5000}:5000"]
        assert "LISTEN=127.0.0.1" in ENVIRONMENT
        assert "ports" not in TEAM["db"]
        assert "ports" not in TEAM["train"]

    def test_the_server_takes_its_options_and_asks_for_passwords(self) -> None:
        command = TEAM["mlflow"]["command"]
        assert command[:3] == ["mlflow", "server", "--app-name=basic-auth"]
        server = mlflow.cli.cli.get_command(click.Context(mlflow.cli.cli), "server")
        assert server is not None
        known = {name for parameter in server.params for name in parameter.opts}
        assert {option.partition("=")[0] for option in command[2:]} <= known
        by_environment = {parameter.envvar for parameter in server.params}
        assert "MLFLOW_BACKEND_STORE_URI" in by_environment

    def test_its_variables_are_mlflows(self) -> None:
        names = {name for name in TEAM["mlflow"]["environment"] if name.startswith("MLFLOW_")}
        assert "MLFLOW_FLASK_SERVER_SECRET_KEY" in names
        for name in names - {"MLFLOW_BACKEND_STORE_URI"}:
            assert hasattr(mlflow.environment_variables, name), name

    def test_the_database_is_the_one_that_the_server_looks_for(self) -> None:
        made = TEAM["db"]["environment"]
        uri = TEAM["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]
        assert uri == f"postgresql+psycopg2://{made['POSTGRES_USER']}@db/{made['POSTGRES_DB']}"
        ini = configparser.ConfigParser()
        ini.read(ROOT / "docker" / "basic_auth.ini")
        users = ini["mlflow"]["database_uri"].rpartition("/")[2]
        sql = (ROOT / "docker" / "create-databases.sql").read_text(encoding="utf-8")
        assert f"CREATE DATABASE {users} OWNER {made['POSTGRES_USER']};" in sql
        assert any("create-databases.sql" in volume for volume in TEAM["db"]["volumes"])
        assert "admin_password" not in ini["mlflow"]

    def test_mlflow_reads_who_may_come_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("flask_wtf", reason="MLflow's authentication needs it: pip install 'Flask-WTF<2'")
        from mlflow.server.auth.config import read_auth_config

        monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(ROOT / "docker" / "basic_auth.ini"))
        monkeypatch.setenv("MLFLOW_AUTH_ADMIN_USERNAME", "chief")
        monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "a-password-of-the-test")
        config = read_auth_config()
        assert (config.admin_username, config.default_permission) == ("chief", "READ")
        assert config.database_uri.startswith("postgresql+psycopg2://")

    def test_training_logs_as_a_user_and_keeps_what_it_cannot_send_on_a_volume(self) -> None:
        environment = TEAM["train"]["environment"]
        assert environment["MLFLOW_TRACKING_URI"] == TRAIN["environment"]["MLFLOW_TRACKING_URI"]
        assert environment["MLFLOW_OUTBOX"].partition("/")[0] in {
            volume.rpartition("/")[2] for volume in TEAM["train"]["volumes"]
        }
        unchanged = {
            name: value for name, value in TRAIN["environment"].items() if name != "MLFLOW_TRACKING_URI"
        }
        assert unchanged.items() <= environment.items()
        assert TEAM["train"]["volumes"] == TRAIN["volumes"]

    @pytest.mark.parametrize("extra", ["compose.data.yaml", "compose.gpu.yaml"])
    def test_data_and_gpus_go_on_top(self, extra: str) -> None:
        assert set(compose("compose.team.yaml", extra)) == set(TEAM)

    def test_every_volume_is_declared(self) -> None:
        document = yaml.safe_load((ROOT / "docker" / "compose.team.yaml").read_text(encoding="utf-8"))
        mounted = {volume.partition(":")[0] for service in TEAM.values() for volume in service["volumes"]}
        assert {name for name in mounted if "/" not in name} == set(document["volumes"])

    def test_the_servers_image_has_what_it_imports(self) -> None:
        text = (ROOT / "docker" / "server.Dockerfile").read_text(encoding="utf-8")
        assert re.search(
            r"^RUN pip install --constraint \S+ mlflow \"Flask-WTF<2\" psycopg2-binary$", text, re.MULTILINE
        )
        assert text.index("\nUSER keeper") > text.index("RUN useradd")
        for source, _ in re.findall(r"^COPY (\S+) (\S+)$", text, flags=re.MULTILINE):
            assert (ROOT / source).is_file()
            assert not ignored(source), source
        ini = TEAM["mlflow"]["environment"]["MLFLOW_AUTH_CONFIG_PATH"]
        assert f"COPY docker/basic_auth.ini {ini}\n" in text
        assert all(
            "/mlflow/artifacts" in option
            for option in TEAM["mlflow"]["command"]
            if "artifacts-dest" in option
        )
        assert TEAM["mlflow"]["volumes"] == ["mlflow:/mlflow/artifacts"]
