"""The seams of the package, held by reading its source: who may import whom, and what no module may do."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "qlib_ext"

# The floors of the house, from the bottom. A folder imports from floors below its own, never from its own or above.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("checks", "files", "lock", "masking", "paths", "terminal"),
    ("config", "market", "metrics", "tracking"),
    ("features", "report", "record"),
    ("data",),
    ("model", "backtest", "portfolio"),
    ("strategy", "lookahead"),
    ("records",),
    ("workflow", "recommend", "factors"),
    ("api", "verify"),
    ("cli",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
COMMON = {"qlib_ext", *(f"qlib_ext.{name}" for name in FLOORS[0])}

# The modules that may know Qlib; everything else is numpy, pandas and torch.
QLIB_AT_HOME = (
    "market",
    "tracking",
    "features.expression_text",
    "data",
    "model.multi_task",
    "model.given_scores",
    "model.trainings.training",
    "model.ensemble",
    "model.walk_forward",
    "backtest",
    "strategy",
    "lookahead",
    "records",
    "workflow",
    "recommend",
    "factors",
    "verify",
)

FAMILIES = ("backbones", "heads", "losses", "balancers", "augmentations", "averaging", "combiners")

# What a family needs from below: the type of its input, the builder of a part that it holds, what shows its call, and ranks.
GIVEN = {
    *COMMON,
    "qlib_ext.data.panel",
    "qlib_ext.config.build",
    "qlib_ext.config.rebuildable",
    "qlib_ext.metrics.cross_section",
}


def module_name(path: Path, package: Path) -> str:
    """`qlib_ext/data/__init__.py` is `qlib_ext.data`."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources(package: Path = PACKAGE) -> dict[str, ast.Module]:
    """Every module of the package, by name."""
    return {
        module_name(path, package): ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        for path in sorted(package.rglob("*.py"))
    }


def imports(tree: ast.Module, known: set[str]) -> set[str]:
    """The modules that a source imports anywhere: at the top, in a function, or for type checking only.

    `from package import module` counts as the module where `known` has it, and as the package otherwise.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute in this package"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                found.add(inner if inner in known else module)
    return found


def stage(module: str) -> str:
    """`qlib_ext.model.losses.mse` belongs to `model`; `qlib_ext.cli.main` to `cli`."""
    return module.split(".")[1] if "." in module else ""


def is_under(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


@functools.cache
def modules() -> dict[str, ast.Module]:
    """The sources, read by the first test that asks: every worker collects this file, and one runs it."""
    return sources()


@functools.cache
def every_import() -> dict[str, set[str]]:
    """Module -> what it imports."""
    return {name: imports(tree, set(modules())) for name, tree in modules().items()}


@functools.cache
def own_imports() -> dict[str, set[str]]:
    """Module -> what it imports of the package."""
    return {
        name: {other for other in found if is_under(other, "qlib_ext")}
        for name, found in every_import().items()
    }


def reached(module: str) -> set[str]:
    """Everything that importing `module` imports, through the package's own modules."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        for other in every_import().get(name, set()) | parents:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def circles(key: Callable[[str], str]) -> list[list[str]]:
    """The groups of places that import each other, where `key` says the place of a module; empty for no place."""
    graph: dict[str, set[str]] = {}
    for name, found in own_imports().items():
        here = key(name)
        graph.setdefault(here, set()).update(
            there for other in found if (there := key(other)) != here and there
        )
    graph.pop("", None)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return [error.args[1]]
    return []


class TestFloors:
    def test_a_folder_imports_from_below(self) -> None:
        wrong = [
            f"{module} is on floor {FLOOR[stage(module)]}, and imports {other}"
            for module, own in own_imports().items()
            for other in sorted(own - {"qlib_ext"})
            if stage(module) and module not in COMMON
            if stage(other) != stage(module) and FLOOR[stage(other)] >= FLOOR[stage(module)]
        ]
        assert wrong == []

    def test_the_ground_imports_itself_alone(self) -> None:
        for module in COMMON & set(own_imports()):
            assert own_imports()[module] <= COMMON, (
                f"{module} is for every floor, found {sorted(own_imports()[module])}"
            )

    def test_every_folder_has_a_floor(self) -> None:
        found = {
            path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
        }
        assert found - {"__init__"} == set(FLOOR)

    def test_the_page_tells_the_floors(self) -> None:
        page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
        told: dict[str, int] = {}
        floor = 0
        for number, names in re.findall(r"^\| (\d*) ?\| ((?:`\w+`(?:, )?)+) \|", page, flags=re.MULTILINE):
            floor = int(number) if number else floor
            told.update(dict.fromkeys(re.findall(r"\w+", names), floor - 1))
        assert told == FLOOR

    def test_no_module_imports_itself_by_another(self) -> None:
        assert circles(lambda module: module) == []

    def test_no_folder_imports_itself_by_another(self) -> None:
        assert circles(stage) == []

    @pytest.mark.parametrize("folder", ["market", "data", "model", "report"])
    def test_no_room_of_a_folder_imports_itself_by_another(self, folder: str) -> None:
        """A room is a folder in it, or a module that lies beside the folders."""
        prefix = f"qlib_ext.{folder}."
        assert circles(lambda module: module.split(".")[2] if module.startswith(prefix) else "") == []

    def test_a_report_computes_nothing(self) -> None:
        """Records compute; a comparison alone is of several runs, which no record sees."""
        wrong = [
            f"{module} computes by {other}"
            for module, own in own_imports().items()
            for other in sorted(own)
            if is_under(module, "qlib_ext.report") and not is_under(module, "qlib_ext.report.comparison")
            if is_under(other, "qlib_ext.metrics")
        ]
        assert wrong == []

    def test_qlib_stays_at_home(self) -> None:
        wrong = [
            f"{module} must not import Qlib, found {other}"
            for module, found in every_import().items()
            for other in sorted(found)
            if is_under(other, "qlib")
            and not any(is_under(module, f"qlib_ext.{home}") for home in QLIB_AT_HOME)
        ]
        assert wrong == []


class TestFamilies:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_no_family_imports_another(self, family: str) -> None:
        home = f"qlib_ext.model.{family}"
        for module in (name for name in modules() if is_under(name, home)):
            wrong = sorted(
                other for other in own_imports()[module] if not is_under(other, home) and other not in GIVEN
            )
            assert not wrong, f"{module} must import its own family only, found {wrong}"

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_family_does_not_reach_qlib_even_indirectly(self, family: str) -> None:
        for module in (name for name in modules() if is_under(name, f"qlib_ext.model.{family}")):
            found = sorted(other for other in reached(module) if is_under(other, "qlib"))
            assert not found, f"importing {module} must not import Qlib, found {found}"

    def test_metrics_stand_alone(self) -> None:
        wrong = [
            f"{module} is functions of arrays, found {other}"
            for module in modules()
            if is_under(module, "qlib_ext.metrics")
            for other in sorted(reached(module))
            if is_under(other, "qlib") or is_under(other, "torch")
        ]
        assert wrong == []

    def test_a_package_holds_a_docstring_only(self) -> None:
        for path in sorted(PACKAGE.rglob("__init__.py")):
            tree = modules()[module_name(path, PACKAGE)]
            assert ast.get_docstring(tree), f"{path.relative_to(ROOT)} says nothing about its package"
            rest = tree.body[1:]
            if path.parent == PACKAGE / "api":  # the one whose names a person imports from the package
                rest = [node for node in rest if not isinstance(node, ast.ImportFrom)][1:]
            if path.parent == PACKAGE:
                rest = [node for node in rest if ast.unparse(node).split(" = ")[0] != "__version__"]
            assert not rest, f"{path.relative_to(ROOT)} must hold its docstring only"


# Calls that no module makes, and the reason. Matched by the end of the dotted name.
FORBIDDEN_CALLS = {
    "print": "a library reports through logging, errors and return values",
    "eval": "configuration is data",
    "exec": "configuration is data",
    "pickle.load": "weights are safetensors, tables are parquet",
    "pickle.loads": "weights are safetensors, tables are parquet",
    "dill.load": "weights are safetensors, tables are parquet",
    "cloudpickle.load": "weights are safetensors, tables are parquet",
    "joblib.load": "weights are safetensors, tables are parquet",
    "pd.read_pickle": "weights are safetensors, tables are parquet",
    "yaml.unsafe_load": "configuration is data",
    "yaml.full_load": "configuration is data",
    "typer.echo": "names reach the terminal by `qlib_ext.terminal.say`, made visible",
    "sys.stdout.write": "names reach the terminal by `qlib_ext.terminal.say`, made visible",
    "sys.stderr.write": "names reach the terminal by `qlib_ext.terminal.say`, made visible",
    "Console": "names reach the terminal by `qlib_ext.terminal.console`, made visible",
    "escape": "names reach a table of the terminal by `qlib_ext.terminal.cell`, made visible",
}


# Who reads what others wrote opens it by `qlib_ext.files`, and these alone do not.
READERS = ("market", "workflow.read", "recommend.holdings", "recommend.memory", "features", "lookahead")
OWN_FILES = {
    "qlib_ext.market.rules.exchange_rules": "tables of the package",
}
OPENERS = re.compile(r"(^|\.)(open|read_text|read_bytes|fromfile|memmap)$")


def openings(tree: ast.Module) -> Iterator[str]:
    """The calls of a source that open a file without a look at what it is."""
    checked = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module in ("qlib_ext.files", "qlib_ext.market.quality.source")
        for alias in node.names
    } | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if OPENERS.search(called) and called not in checked | {"os.open", "TrainedRun.open"}:
                yield f"line {node.lineno}: `{called}` (`qlib_ext.files` looks first at what it is)"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    return handler.type is not None and ast.unparse(handler.type) in {"Exception", "BaseException"}


def _names(node: ast.ImportFrom, name: str) -> bool:
    return any(alias.name == name for alias in node.names)


def violations(tree: ast.Module) -> Iterator[str]:
    """What a source does that this package never does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: a bare `except` hides what went wrong"
        elif isinstance(node, ast.ImportFrom) and node.module == "qlib_ext" and _names(node, "checks"):
            yield f"line {node.lineno}: `from qlib_ext.checks import ...` names what is used, everywhere"
        elif isinstance(node, ast.ExceptHandler) and _is_broad(node) and isinstance(node.body[-1], ast.Pass):
            yield f"line {node.lineno}: any error at all is skipped in silence"
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called in FORBIDDEN_CALLS:
                yield f"line {node.lineno}: `{called}`: {FORBIDDEN_CALLS[called]}"
            elif called == "torch.load" and keywords.get("weights_only") != "True":
                yield f"line {node.lineno}: `torch.load` without `weights_only=True` runs code from the file"
            elif keywords.get("allow_pickle") == "True":
                yield f"line {node.lineno}: `allow_pickle=True` runs code from the file"


class TestHabits:
    def test_no_module_does_what_none_may(self) -> None:
        found = [f"{module}, {said}" for module, tree in modules().items() for said in violations(tree)]
        # the terminal does so for all
        assert [x for x in found if not (x.startswith("qlib_ext.terminal,") and "made visible" in x)] == []

    def test_files_of_others_are_opened_with_care(self) -> None:
        wrong = [
            f"{module}, {said}"
            for module, tree in modules().items()
            if module not in OWN_FILES and any(is_under(module, f"qlib_ext.{part}") for part in READERS)
            for said in openings(tree)
        ]
        assert wrong == []

    def test_every_module_says_what_it_is(self) -> None:
        assert [module for module, tree in modules().items() if not ast.get_docstring(tree)] == []


class TestReader:
    """The reader above sees what it should: a rule that cannot fail holds nothing."""

    def test_it_sees_imports_wherever_they_stand(self) -> None:
        tree = ast.parse(
            "import qlib.data as d\n"
            "from qlib_ext.model import trainer, missing\n"
            "if TYPE_CHECKING:\n    from a.b import C\n"
            "def f():\n    import later\n"
        )
        expected = {"qlib.data", "qlib_ext.model.trainer", "qlib_ext.model", "a.b", "later"}
        assert imports(tree, {"qlib_ext.model.trainer"}) == expected

    def test_it_sees_a_circle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(own_imports(), "qlib_ext.checks", {"qlib_ext.market.store"})
        assert circles(lambda module: module) != []
        assert circles(stage) != []

    def test_it_refuses_relative_imports(self) -> None:
        with pytest.raises(AssertionError, match="line 1: imports are absolute"):
            imports(ast.parse("from . import losses"), set())

    def test_it_does_not_take_qlib_ext_for_qlib(self) -> None:
        assert is_under("qlib.data", "qlib")
        assert not is_under("qlib_ext.data", "qlib")

    def test_it_follows_imports_through_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(every_import(), "qlib_ext.model.losses.planted", {"qlib_ext.checks_planted"})
        monkeypatch.setitem(every_import(), "qlib_ext.checks_planted", {"qlib.config"})
        assert "qlib.config" in reached("qlib_ext.model.losses.planted")

    @pytest.mark.parametrize(
        ("code", "message"),
        [
            ("print(1)", "line 1: `print`: a library reports through logging, errors and return values"),
            ("x = eval('1')", "line 1: `eval`: configuration is data"),
            ("pickle.load(f)", "line 1: `pickle.load`: weights are safetensors, tables are parquet"),
            ("try:\n    f()\nexcept:\n    raise", "line 3: a bare `except` hides what went wrong"),
            ("try:\n    f()\nexcept Exception:\n    pass", "line 3: any error at all is skipped in silence"),
            ("torch.load(f)", "line 1: `torch.load` without `weights_only=True` runs code from the file"),
            (
                "from qlib_ext import checks",
                "line 1: `from qlib_ext.checks import ...` names what is used, everywhere",
            ),
            (
                "typer.echo(name)",
                "line 1: `typer.echo`: names reach the terminal by `qlib_ext.terminal.say`, made visible",
            ),
            ("np.load(f, allow_pickle=True)", "line 1: `allow_pickle=True` runs code from the file"),
        ],
    )
    def test_it_sees_what_no_module_may_do(self, code: str, message: str) -> None:
        assert list(violations(ast.parse(code))) == [message]

    @pytest.mark.parametrize(
        "call", ["open(p)", "p.open()", "p.read_text()", "np.fromfile(p)", "gzip.open(p)"]
    )
    def test_it_sees_files_that_are_opened_without_a_look(self, call: str) -> None:
        assert len(list(openings(ast.parse(call)))) == 1
        assert (
            list(openings(ast.parse("from qlib_ext.files import read_text\nread_text(p)\nos.open(p)"))) == []
        )

    @pytest.mark.parametrize("code", ["torch.load(f, weights_only=True)", "console.print(1)", "model.eval()"])
    def test_it_lets_the_rest_pass(self, code: str) -> None:
        assert list(violations(ast.parse(code))) == []
