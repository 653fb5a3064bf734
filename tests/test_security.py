"""What comes from outside runs nothing, reaches nothing it should not, and learns no password."""

from __future__ import annotations

import ast
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import qlib
import yaml
from qlib.workflow import R

from qlib_ext.checks import UserError
from qlib_ext.config.security import check_classes
from qlib_ext.records.base import Record
from qlib_ext.tracking.artifacts import RunArtifacts
from qlib_ext.tracking.outbox import send_all
from qlib_ext.workflow.read import read_workflow
from tests.interpreter import Interpreter

ROOT = Path(__file__).parent.parent
SECRET = "hunter2-and-more"

# -- nothing is unpickled or evaluated ------------------------------------------------------------------------

MODULES = {
    "pickle": "unpickles",
    "_pickle": "unpickles",
    "cloudpickle": "unpickles",
    "dill": "unpickles",
    "joblib": "unpickles",
    "shelve": "unpickles",
    "marshal": "loads code",
    "code": "runs code",
    "runpy": "runs code",
    "telnetlib": "speaks in the clear",
}
CALLS = {
    "eval": "evaluates",
    "exec": "runs code",
    "compile": "compiles code",
    "__import__": "imports by name",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "torch.load": "unpickles",
    "read_pickle": "unpickles",
    "read_hdf": "unpickles",
    "load_object": "unpickles, but for what Recorder kept itself",
    "init_instance_by_config": "builds classes of any package, where qlib_ext.config.build is asked",
    "get_callable_kwargs": "builds classes of any package, where qlib_ext.config.build is asked",
    "unsafe_load": "builds objects",
    "full_load": "builds objects",
    "mktemp": "races",
}
ALLOWED = {
    ("qlib_ext/records/lookahead.py", "load_object"),
    ("qlib_ext/records/signal.py", "load_object"),  # of what the run itself saved, from memory
    ("qlib_ext/workflow/recorder.py", "load_object"),  # Qlib's, where the caller brings an unpickler
    ("qlib_ext/lookahead/subject.py", "init_instance_by_config"),  # of a task that `check_classes` has passed
    (
        "qlib_ext/verify/again.py",
        "init_instance_by_config",
    ),  # as Qlib makes records; `check_classes` has passed the task
    # Reads a file that `read_workflow` has passed, by ruamel's round trip, which is a safe constructor: comments stay.
    ("qlib_ext/workflow/search/searched.py", "YAML"),
    # names that the code itself gives, and `locate`, which asks `check_allowed`
    ("qlib_ext/config/build.py", "import_module"),
    ("qlib_ext/market/fetch/named.py", "import_module"),  # one of the modules of its own folder
    ("qlib_ext/market/fetch/source.py", "import_module"),
    ("qlib_ext/tracking/runs.py", "import_module"),
    ("benchmarks/load.py", "init_instance_by_config"),  # of a task that it makes itself
    ("benchmarks/rolling_libraries.py", "import_module"),
}


def findings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a source calls or imports that could run what it reads, and why."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.partition(".")[0] in MODULES:
                yield name, MODULES[name.partition(".")[0]]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        last = called.rpartition(".")[2]
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in CALLS or (last in CALLS and last not in ("eval", "exec", "compile")):
            yield last, CALLS.get(called) or CALLS[last]
        elif last == "import_module" and not (node.args and isinstance(node.args[0], ast.Constant)):
            yield last, "imports what a variable names"
        elif called in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
            yield called, "may unpickle"
        elif (called == "yaml.load" and "Safe" not in ast.unparse(node)) or (
            last == "YAML" and keywords.get("typ") != "'safe'"
        ):
            yield called, "builds objects"
        elif keywords.get("shell") == "True":
            yield called, "runs a shell"
        elif keywords.get("verify") == "False":
            yield called, "believes any server"
        elif called == "jinja2.Template" and "benchmarks" not in str(getattr(tree, "path", "")):
            yield called, "renders without a sandbox"


class TestSources:
    def test_nothing_runs_what_it_reads(self) -> None:
        found = []
        for path in sorted([*(ROOT / "qlib_ext").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]):
            tree: Any = ast.parse(path.read_text(encoding="utf-8"))
            tree.path = path.relative_to(ROOT).as_posix()
            found += [(tree.path, *each) for each in findings(tree) if (tree.path, each[0]) not in ALLOWED]
        assert found == []

    @pytest.mark.parametrize(
        "code",
        [
            "import pickle",
            "from joblib import load",
            "eval(x)",
            "pd.read_pickle(x)",
            "recorder.load_object(x)",
            "np.load(x, allow_pickle=trusted)",
            "YAML().load(x)",
            "subprocess.run(x, shell=True)",
            "importlib.import_module(name)",
            "requests.get(x, verify=False)",
            "jinja2.Template(x)",
        ],
    )
    def test_the_look_at_the_sources_sees(self, code: str) -> None:
        assert list(findings(ast.parse(code)))

    @pytest.mark.parametrize(
        "code",
        [
            "model.eval()",
            "re.compile(x)",
            "yaml.safe_load(x)",
            "np.load(x)",
            "importlib.import_module('a')",
        ],
    )
    def test_and_lets_the_rest_pass(self, code: str) -> None:
        assert not list(findings(ast.parse(code)))


class TestClasses:
    """What Qlib itself would build of a task, seen before it does."""

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"class": "subprocess.Popen"}, "`task.class` must be of one of the packages"),
            ({"class": "Popen", "module_path": "subprocess"}, "must be of one of the packages"),
            (
                {"a": [{"kwargs": {"b": {"class": "os.system"}}}]},
                r"`task.a\[0\].kwargs.b.class` must be of one",
            ),
            (
                {"class": "X", "module_path": "/tmp/evil.py"},
                "must be a dotted module, found the file '/tmp/evil.py'",
            ),
            ({"class": "X", "module_path": "evil.py"}, "must be a dotted module, found the file"),
            ({"class": "X", "module_path": 3}, "`task.module_path` must be a dotted module, found 3"),
            ({"class": None}, "must be a dotted class"),
            ({"func": "os.system", "kwargs": {}}, "must name a class, found the function 'os.system'"),
            ({"handler": "file:///tmp/x"}, "`task.handler` must not be a file that is unpickled"),
            ({"config": "x/y.PKL"}, "`task.config` must not be a file that is unpickled"),
            ({"model_path": "weights.pt"}, "must not be a file that is unpickled"),
            (
                {
                    "class": "qlib.contrib.model.pytorch_tra.TRAModel",
                    "kwargs": {"model_type": "print(1) or LSTM"},
                },
                "`task.kwargs.model_type` must be a name, found",
            ),
        ],
    )
    def test_what_would_run_a_program_is_refused(self, config: Any, message: str) -> None:
        with pytest.raises(UserError, match=message):
            check_classes(config, "task")

    def test_a_bare_name_is_one_of_qlibs(self) -> None:
        check_classes({"class": "RobustZScoreNorm", "kwargs": {"fields_group": "feature"}}, "task")

    def test_anchors_that_name_each_other_end(self) -> None:
        lines = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30))]
        config = yaml.safe_load("\n".join(lines))  # 9 to the power of 30, were each followed
        config["self"] = config
        check_classes(config, "task")


class TestTemplates:
    """`qlib-ext check` reads a workflow without running it."""

    def read(self, text: str, folder: Path, **environment: str) -> Any:
        path = folder / "workflow.yaml"
        path.write_text(text, encoding="utf-8")
        return read_workflow(path, environment)

    def test_values_are_filled_in(self, tmp_path: Path) -> None:
        text = "a: {{ A | default(3, true) }}\nb: {{ B | default('x', true) }}"
        assert self.read(text, tmp_path, A="5") == {"a": 5, "b": "x"}

    @pytest.mark.parametrize(
        "expression",
        [
            "cycler.__init__.__globals__.os.mkdir('planted')",
            "''.__class__.__mro__[1].__subclasses__()",
            "self.__init__.__globals__",
            "lipsum.__globals__['os'].mkdir('planted')",
        ],
    )
    def test_programs_are_not_run(
        self, expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UserError, match="is no template that fills in values"):
            self.read(f"a: {{{{ {expression} }}}}", tmp_path)
        assert not (tmp_path / "planted").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a: {{ b", "is no template that fills in values in line 1"),
            ("a: 1\na: 2", "is no YAML in line 2: found duplicate key"),
            ("a: [1", "is no YAML"),
            ("day: 2015-02-30", "has a value that cannot be read: day is out of range for month"),
            (
                "a: !!python/object/apply:os.mkdir ['planted']",
                "is no YAML in line 1: could not determine a constructor",
            ),
            ("just a text", "must be a mapping with qlib_init and task"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, text: str, message: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=message) as error:
            self.read(text, tmp_path)
        assert "\n" not in str(error.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="cannot be read"):
            read_workflow(tmp_path / "none.yaml")


# -- paths ----------------------------------------------------------------------------------------------------


class Thief(Record):
    """Writes where its `path` leads."""

    def __init__(self, recorder: Any, path: str) -> None:
        super().__init__(recorder)
        self.path = path

    def _generate(self) -> None:
        self.save_text(self.path, "stolen")


class TestPaths:
    @pytest.mark.parametrize("path", ["../x.txt", "/tmp/x.txt", "a/../../x.txt", "a\\..\\x.txt"])
    def test_a_record_writes_into_its_run_alone(self, path: str) -> None:
        recorder = SimpleNamespace(log_artifact=lambda *given: pytest.fail(f"logged {given}"))
        with pytest.raises(UserError, match="an artifact must stay below its folder"):
            Thief(recorder, path).generate()

    @pytest.mark.parametrize("path", ["../secret.txt", "/etc/hostname", "signal/../../secret.txt"])
    def test_a_run_is_read_from_its_folder_alone(self, path: str, tmp_path: Path) -> None:
        (tmp_path / "secret.txt").write_text(SECRET)
        (tmp_path / "run").mkdir()
        with pytest.raises(UserError, match="must stay below its folder"):
            RunArtifacts(tmp_path / "run").text(path)

    def test_a_link_in_a_run_leads_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "secret.txt").write_text(SECRET)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").symlink_to(tmp_path / "secret.txt")
        with pytest.raises(UserError, match="which is a link to"):
            RunArtifacts(tmp_path / "run").text("config.yaml")

    def test_nor_does_one_among_the_artifacts_of_a_store(self, tmp_path: Path) -> None:
        (tmp_path / "secret.txt").write_text(SECRET)
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        experiment = client.create_experiment("e", artifact_location=(tmp_path / "artifacts").as_uri())
        run = client.create_run(experiment)
        client.log_text(run.info.run_id, "a: 1", "config.yaml")
        place = tmp_path / "artifacts" / run.info.run_id / "artifacts"
        (place / "data").symlink_to(tmp_path)
        fetched = RunArtifacts.download(client, run.info.run_id, ["config.yaml"], tmp_path / "good")
        assert fetched.text("config.yaml") == "a: 1"
        with pytest.raises(UserError, match="which is a link to"):
            RunArtifacts.download(client, run.info.run_id, ["data/secret.txt"], tmp_path / "bad")
        assert not (tmp_path / "bad").exists()

    def test_an_outbox_sends_its_own_files_alone(self, tmp_path: Path) -> None:
        (tmp_path / "secret.txt").write_text(SECRET)
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
        run = client.create_run(client.create_experiment("e", artifact_location=(tmp_path / "a").as_uri()))
        folder = tmp_path / "outbox" / run.info.run_id
        folder.mkdir(parents=True)
        whose = {
            "run_id": run.info.run_id,
            "host": "elsewhere",
            "process": 1,
            "tracking_uri": client.tracking_uri,
        }
        (folder / "run.json").write_text(json.dumps(whose))
        (folder / "unsent.jsonl").write_text('{"artifact": "../../../secret.txt"}\n')
        with pytest.raises(UserError, match="an artifact must stay below its folder"):
            list(send_all(tmp_path / "outbox", client.tracking_uri))
        assert not client.list_artifacts(run.info.run_id)


# -- secrets --------------------------------------------------------------------------------------------------


class TestSecrets:
    @pytest.fixture
    def recorder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setenv("TUSHARE_TOKEN", SECRET)
        monkeypatch.chdir(tmp_path)
        manager = {
            "class": "qlib_ext.workflow.experiment.ExperimentManager",
            "kwargs": {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
        }
        qlib.init(provider_uri=str(tmp_path), region="cn", kernels=1, exp_manager=manager)
        terminate = signal.getsignal(signal.SIGTERM)
        with R.start(experiment_name="secrets"):
            yield R.get_recorder()
        signal.signal(signal.SIGTERM, terminate)

    def test_no_param_tag_object_or_log_of_a_run_has_one(
        self, recorder: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        uri = f"postgresql://ann:{SECRET}-2@host/db"
        config = {"feed": {"token": SECRET, "uri": [uri]}}
        R.log_params(token=SECRET, nested=config)
        R.set_tags(token=f"x {SECRET}", uri=uri)
        recorder.save_objects(config=config)
        for name in ("qlib", "qlib_ext", "mlflow"):
            logging.getLogger(f"{name}.anything").error("with %s and %s", SECRET, uri)
        run = recorder.client.get_run(recorder.id)
        assert run.data.params["token"] == "***"
        assert run.data.tags["token"] == "x ***"
        assert recorder.load_object("config") == {
            "feed": {"token": "***", "uri": ["postgresql://***@host/db"]}
        }
        said = capfd.readouterr()
        assert SECRET not in said.out + said.err
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(files) > 1  # the database and the object
        assert [path for path in files if SECRET.encode() in path.read_bytes()] == []

    def test_qrun_prints_none_of_a_store_that_does_not_answer(
        self, tmp_path: Path, interpreter: Interpreter
    ) -> None:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")
        }
        environment |= {
            "MLFLOW_TRACKING_URI": f"http://ann:{SECRET}@127.0.0.1:9/",
            "MLFLOW_TRACKING_TOKEN": f"{SECRET}-token",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "QLIB_DATA": str(tmp_path),
            "OMP_NUM_THREADS": "1",
        }
        (tmp_path / "feed.py").write_text("")
        workflow = str(ROOT / "workflows" / "stl_csi300.yaml")
        done = interpreter("-m", "qlib.cli.run", workflow, cwd=tmp_path, env=environment)
        assert done.returncode == 1
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
