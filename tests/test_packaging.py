"""The distribution, its pins and the commands around it agree with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import qlib_ext
from qlib_ext.config.build import locate

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PIN_LINES = [line for line in CONSTRAINTS if not line.startswith("#")]
PINS = {canonicalize_name(line.partition("==")[0]): Version(line.partition("==")[2]) for line in PIN_LINES}
REQUIREMENTS = [
    Requirement(text)
    for group in [
        PROJECT["build-system"]["requires"],
        PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"].values(),
    ]
    for text in group
    if not text.startswith("qlib-ext")
]


FOLDERS = ("qlib_ext", "workflows")


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make as a user would, without what the make around these tests hands down."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    for key in (
        "HIDDEN_SIZE",
        "LEARNING_RATE",
        "N_EPOCHS",
        "PYTHON",
        "QLIB_DATA",
        "SAMPLE",
        "VENV",
        "WORKFLOW",
        "MLFLOW_DISABLE_TELEMETRY",
    ):
        inherited.pop(key, None)
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=inherited | variables,
        capture_output=True,
        text=True,
        check=False,
    )


class TestDistribution:
    def test_the_version_is_a_version(self) -> None:
        assert str(Version(qlib_ext.__version__)) == qlib_ext.__version__

    def test_the_citation_has_the_version(self) -> None:
        citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        assert citation["version"] == qlib_ext.__version__

    def test_the_command_leads_to_a_function(self) -> None:
        module, _, function = PROJECT["project"]["scripts"]["qlib-ext"].partition(":")
        assert callable(vars(__import__(module, fromlist=[function]))[function])

    def test_types_are_shipped(self) -> None:
        assert (ROOT / "qlib_ext" / "py.typed").exists()

    def test_files_beside_the_code_are_shipped(self) -> None:
        patterns = PROJECT["tool"]["setuptools"]["package-data"]["qlib_ext"]
        package = ROOT / "qlib_ext"
        shipped = {path for pattern in patterns for path in package.glob(pattern)} | {*package.rglob("*.py")}
        found = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        assert found == shipped


def test_sdist_and_wheel_hold_all_that_a_user_needs(tmp_path: Path) -> None:
    """Built as an index would have them, the wheel from the sdist, and tried in an environment that has them alone."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_"))}

    def call(*words: object, cwd: Path = tmp_path) -> str:
        done = subprocess.run(
            [*map(str, words)], cwd=cwd, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    source = tmp_path / "source"
    source.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file() and (
            path.suffix in (".md", ".toml", ".py", ".txt", ".in") or path.name == "LICENSE"
        ):
            shutil.copy(path, source)
    build = "import sys, setuptools.build_meta as b; getattr(b, 'build_' + sys.argv[1])(sys.argv[2])"
    call(sys.executable, "-c", build, "sdist", tmp_path, cwd=source)
    (sdist,) = tmp_path.glob("*.tar.gz")
    shutil.rmtree(source)
    with tarfile.open(sdist) as packed:
        packed.extractall(tmp_path / "unpacked")  # our own; Python 3.11.2 has no filter yet
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    call(sys.executable, "-c", build, "wheel", tmp_path, cwd=unpacked)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    own = {path.relative_to(ROOT).as_posix() for name in FOLDERS for path in files_below(ROOT / name)}
    assert shipped == {re.sub("^workflows/", "qlib_ext/workflows/", name) for name in own}

    call(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    install = (
        "--disable-pip-version-check",
        "install",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--quiet",
        wheel,
    )
    call(sys.executable, "-m", "pip", "--python", python, *install)
    places = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    # What it depends on is that of these tests; a .pth file that such a place holds is not read from here.
    (Path(call(python, "-c", code).strip()) / "tests.pth").write_text("\n".join(places))

    said = call(python.with_name("qlib-ext"), "init", "mine")
    assert f"{tmp_path / 'mine'}: {len([*(ROOT / 'workflows').glob('*.yaml')])} workflows" in said
    for path in files_below(ROOT / "workflows"):
        assert (tmp_path / "mine" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    place = call(python, "-c", "import qlib_ext; print(qlib_ext.__file__)").strip()
    assert Path(place).is_relative_to(tmp_path / "venv")


class TestConstraints:
    def test_every_line_is_one_exact_version(self) -> None:
        wrong = [line for line in PIN_LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)]
        assert not wrong, "a pin names no host, no path and no local build"

    def test_no_distribution_is_pinned_twice(self) -> None:
        assert len(PINS) == len(PIN_LINES)

    def test_torch_brings_its_own_libraries(self) -> None:
        assert not [name for name in PINS if name.startswith(("nvidia-", "cuda-", "triton"))]

    @pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
    def test_what_the_project_needs_is_pinned_in_its_range(self, requirement: Requirement) -> None:
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


class TestMake:
    def test_help_lists_every_target(self) -> None:
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", text, flags=re.MULTILINE)
        listed = re.findall(r"^  make (\S+)", make("help").stdout, flags=re.MULTILINE)
        assert sorted(listed) == sorted(phony.replace("\\\n", " ").split())

    def test_backtest_runs_the_main_workflow_on_the_sample_market(self, tmp_path: Path) -> None:
        steps = make("--dry-run", "backtest", VENV=str(tmp_path / "venv")).stdout
        bin_ = tmp_path / "venv" / "bin"
        sample, run = steps.strip().splitlines()[-2:]
        assert (
            sample
            == f"{bin_}/qlib-ext data sample --out sample_market --seed 0 --start 2013-01-04 --end 2018-12-28"
        )
        assert run == f"{bin_}/qrun workflows/mimstocr_csi300.yaml"
        assert "--constraint constraints.txt" in steps

    def test_backtest_makes_no_sample_market_for_one_who_has_data(self, tmp_path: Path) -> None:
        done = make("--dry-run", "backtest", QLIB_DATA="elsewhere", VENV=str(tmp_path / "venv"))
        assert done.returncode == 0
        assert "data sample" not in done.stdout

    @pytest.mark.parametrize(
        ("variables", "expected"),
        [
            ({}, "sample_market 1 0.002 32 true"),
            ({"N_EPOCHS": "20"}, "sample_market 20 0.002 32 true"),
            ({"QLIB_DATA": "elsewhere"}, "elsewhere unset unset unset true"),
            ({"SAMPLE": "other"}, "other 1 0.002 32 true"),
            ({"MLFLOW_DISABLE_TELEMETRY": "false"}, "sample_market 1 0.002 32 false"),
        ],
    )
    def test_what_a_run_finds_in_its_environment(
        self, variables: dict[str, str], expected: str, tmp_path: Path
    ) -> None:
        # A qrun that tells its environment, in a virtual environment that looks installed.
        bin_ = tmp_path / "bin"
        bin_.mkdir()
        script = (
            '#!/bin/sh\necho "$QLIB_DATA ${N_EPOCHS-unset} ${LEARNING_RATE-unset} ${HIDDEN_SIZE-unset} '
            '$MLFLOW_DISABLE_TELEMETRY"\n'
        )
        for name, text in {"qrun": script, "python": "", "qlib-ext": ""}.items():
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        (tmp_path / ".installed").touch()
        done = make("backtest", VENV=str(tmp_path), **variables)
        assert done.stdout.strip().splitlines()[-1] == expected

    def test_one_without_a_fitting_python_is_told_so(self, tmp_path: Path) -> None:
        done = make("install", PYTHON="no-such-python", VENV=str(tmp_path / "venv"))
        assert done.returncode != 0
        assert "Python 3.11 or 3.12 is needed, found neither (tried: no-such-python)." in done.stderr
        assert not (tmp_path / "venv").exists()

    def test_the_supported_pythons_are_those_of_the_distribution(self) -> None:
        assert PROJECT["project"]["requires-python"] == ">=3.11,<3.13"
        text = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert "(3, 11) <= sys.version_info < (3, 13)" in text

    def test_the_tests_end_with_pytest(self, tmp_path: Path) -> None:
        steps = make("--dry-run", "test", VENV=str(tmp_path)).stdout.strip().splitlines()
        called = [re.sub(rf"^{re.escape(str(tmp_path))}/bin/", "", step) for step in steps[-4:]]
        lint, run = [step.strip() for step in called[:3]], called[3].split()
        assert lint == ["ruff format --check", "ruff check", "mypy"]
        assert run[0] == "pytest"
        assert "--dist" in run, "files are shared out whole: fixtures of a file are made once"

    @pytest.mark.parametrize(
        ("user", "installs", "told"),
        [
            ("0", True, "Installing Chromium for the browser tests"),
            ("1000", False, "only root may install it: the browser tests will skip"),
        ],
    )
    def test_the_tests_bring_their_browser(
        self, user: str, installs: bool, told: str, tmp_path: Path
    ) -> None:
        log = tmp_path / "log"
        for name, text in {"id": f"echo {user}", "apt-get": f'echo "$@" >> {log}'}.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        program = shutil.which("make")
        assert program is not None
        shell = {"PATH": str(tmp_path)}  # a machine without a browser
        done = subprocess.run(
            [program, "--no-print-directory", "chromium"],
            cwd=ROOT,
            env=shell,
            capture_output=True,
            text=True,
            check=True,
        )
        assert told in done.stdout + done.stderr
        assert log.exists() is installs
        if installs:
            assert [line.split()[1] for line in log.read_text().splitlines()] == ["update", "install"]

    @pytest.mark.parametrize("ours", [True, False])
    def test_clean_removes_only_what_was_made_here(self, ours: bool, tmp_path: Path) -> None:
        marks = [tmp_path / "market" / "side" / "sample.json", tmp_path / "venv" / ".made"]
        for mark in marks:
            mark.parent.mkdir(parents=True)
            mark.with_name("precious").touch()
            if ours:
                mark.touch()
        steps = make(
            "--dry-run", "clean", SAMPLE=str(tmp_path / "market"), VENV=str(tmp_path / "venv")
        ).stdout
        guarded = [line for line in steps.splitlines() if str(tmp_path) in line]
        assert len(guarded) == 2
        for line in guarded:
            subprocess.run(["sh", "-c", line], check=True)
        assert [mark.with_name("precious").exists() for mark in marks] == [not ours] * 2


class TestContinuousIntegration:
    def test_it_runs_make_test(self) -> None:
        script = ROOT / ".ci" / "run"
        assert os.access(script, os.X_OK)
        assert script.read_text(encoding="utf-8").splitlines()[-1] == "exec make --no-print-directory test"
        subprocess.run(["bash", "-n", str(script)], check=True)


ACTIONS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
}


class TestGitHub:
    """Nothing of it runs here, so each step is a target that does."""

    def steps(self) -> list[dict[str, str]]:
        return [step for of in ACTIONS.values() for job in of["jobs"].values() for step in job["steps"]]

    def test_each_step_is_an_action_or_a_target_of_make(self) -> None:
        targets = re.findall(r"^  make (\S+)", make("help").stdout, flags=re.MULTILINE)
        matrix = ACTIONS["checks.yml"]["jobs"]["versions"]["strategy"]["matrix"]["target"]
        assert set(matrix) <= set(targets)
        called = [step["run"].split() for step in self.steps() if "run" in step]
        assert {words[0] for words in called} == {"make"}
        assert {words[1] for words in called} - {"${{"} <= set(targets)
        assert {"lint", "test", "dist", "image"} <= {words[1] for words in called}

    def test_each_action_names_its_version(self) -> None:
        uses = [step["uses"] for step in self.steps() if "uses" in step]
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", name) for name in uses)

    def test_no_job_may_more_than_it_must(self) -> None:
        for of in ACTIONS.values():
            assert of["permissions"] == {"contents": "read"}
        jobs = ACTIONS["release.yml"]["jobs"]
        assert jobs["publish"]["permissions"] == {"id-token": "write"}
        assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")

    def test_the_matrix_is_the_supported_pythons(self) -> None:
        (of_tests,) = ACTIONS["checks.yml"]["jobs"]["tests"]["strategy"]["matrix"].values()
        named = [
            text.rpartition(" ")[2] for text in PROJECT["project"]["classifiers"] if "Python :: 3." in text
        ]
        assert of_tests == named

    @pytest.mark.parametrize("tag", ["v0.0.0", "0.2.0"])
    def test_a_tag_of_another_version_builds_nothing(self, tag: str, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "python").symlink_to(sys.executable)
        (tmp_path / ".installed").touch()
        done = make("dist", f"TAG={tag}", VENV=str(tmp_path), PYTHONPATH=str(ROOT))
        assert done.returncode != 0
        assert f"The tag must be v{qlib_ext.__version__}" in done.stderr
        assert not (ROOT / "dist").exists() or done.stdout == ""

    def test_an_issue_asks_for_the_doctor(self) -> None:
        form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8"))
        asked = {field["id"]: field for field in form["body"]}
        assert "qlib-ext doctor" in asked["doctor"]["attributes"]["label"]
        assert asked["doctor"]["validations"] == {"required": True}


def test_all_is_every_extra_that_a_run_can_use() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    (named,) = map(Requirement, extras["all"])
    assert named.extras == set(extras) - {"all", "dev", "docs", "test"}
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    told = re.findall(
        r"^\| `(\w+)` \|", page.partition("## Extras")[2].partition("\n## ")[0], flags=re.MULTILINE
    )
    assert sorted(told) == sorted(named.extras | {"all"})


class TestPreCommit:
    def test_every_hook_is_a_tool_of_the_environment(self) -> None:
        config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
        assert [repository["repo"] for repository in config["repos"]] == ["local"]
        for hook in config["repos"][0]["hooks"]:
            assert hook["language"] == "system"
            tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
            assert canonicalize_name(tool) in PINS


def test_every_class_that_a_workflow_names_exists() -> None:
    for workflow in sorted((ROOT / "workflows").glob("*.yaml")):
        named = re.findall(r"class: (qlib_ext[\w.]+)", workflow.read_text(encoding="utf-8"))
        assert named, f"{workflow.name} uses nothing of this package"
        for path in named:
            locate(path, name=workflow.name)
