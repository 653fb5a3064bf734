"""A nested mapping becomes a checked object, and a wrong one says where it is wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qlib_ext.checks import UserError
from qlib_ext.config.build import build, dotted, locate

MODULE = """
class Shape:
    def __init__(self, size=1):
        self.size = size

class Square(Shape):
    def __init__(self, size, colour="red", *, scale=1.0):
        super().__init__(size)
        self.colour, self.scale = colour, scale

class Point(Shape):
    def __init__(self):
        super().__init__(0)

class Free(Shape):
    def __init__(self, **kwargs):
        super().__init__(kwargs.get("size", 0))
        self.kwargs = kwargs

class Broken(Shape):
    def __init__(self):
        raise TypeError("from inside the constructor")

class Other: ...

from abc import ABC, abstractmethod
from pathlib import Path

class Idea(ABC, Shape):
    @abstractmethod
    def draw(self): ...

CONSTANT = 1
def function(): ...
"""


@pytest.fixture(autouse=True)
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package `drawing` with a module `drawing.shapes`, and one that imports a library that is not there."""
    package = tmp_path / "drawing"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "shapes.py").write_text(MODULE)
    (package / "needs_more.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("QLIB_EXT_PACKAGES", "drawing, paintings")
    import drawing.shapes  # type: ignore[import-not-found]

    yield drawing.shapes
    for name in [name for name in sys.modules if name.split(".")[0] == "drawing"]:
        del sys.modules[name]


def message(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(UserError) as error:
        call(*args, **kwargs)
    return str(error.value)


class TestLocate:
    def test_finds_a_class_by_its_dotted_name(self, shapes: Any) -> None:
        assert locate("drawing.shapes.Square", name="shape") is shapes.Square
        assert dotted(shapes.Square) == "drawing.shapes.Square"

    @pytest.mark.parametrize("path", ["Square", "", 3, None])
    def test_needs_a_dotted_name(self, path: Any) -> None:
        assert message(locate, path, name="shape") == (
            f"`shape.class` must be a dotted class such as `package.module.Class`, found {path!r}"
        )

    @pytest.mark.parametrize("module", ["drawing.figures", "paintings", "drawing.shapes.Square"])
    def test_names_the_module_that_does_not_exist(self, module: str) -> None:
        assert message(locate, f"{module}.Circle", name="shape") == (
            f"`shape.class` names a module that does not exist: `{module}` (from '{module}.Circle')"
        )

    def test_names_the_nearest_class(self) -> None:
        assert message(locate, "drawing.shapes.Pnt", name="shape") == (
            "`shape.class` names no class: `Pnt` is not in `drawing.shapes` (did you mean Point?)"
        )

    @pytest.mark.parametrize("found", ["CONSTANT", "function"])
    def test_takes_classes_only(self, found: str) -> None:
        assert message(locate, f"drawing.shapes.{found}", name="shape") == (
            f"`shape.class` names no class: `{found}` is not in `drawing.shapes`"
        )

    def test_names_the_nearest_module(self) -> None:
        assert (
            "does not exist: `drawing.shape` (did you mean shapes?) (from 'drawing.shape.Point')"
            in message(locate, "drawing.shape.Point", name="shape")
        )

    def test_a_missing_library_is_not_taken_for_a_missing_module(self) -> None:
        with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
            locate("drawing.needs_more.Class", name="shape")


class TestBuild:
    def test_builds_the_object(self, shapes: Any) -> None:
        config = {"class": "drawing.shapes.Square", "kwargs": {"size": 3, "scale": 2.0}}
        square = build(config, shapes.Shape, name="shape")
        assert type(square) is shapes.Square
        assert (square.size, square.colour, square.scale) == (3, "red", 2.0)

    @pytest.mark.parametrize("kwargs", [{}, {"kwargs": {}}, {"kwargs": None}])
    def test_needs_no_kwargs_where_the_class_needs_none(self, shapes: Any, kwargs: dict[str, Any]) -> None:
        assert build({"class": "drawing.shapes.Point", **kwargs}, shapes.Shape, name="shape").size == 0

    def test_adds_what_the_caller_gives(self, shapes: Any) -> None:
        config = {"class": "drawing.shapes.Square", "kwargs": {"scale": 2.0}}
        square = build(config, shapes.Shape, name="shape", size=5, colour="blue")
        assert (square.size, square.colour, square.scale) == (5, "blue", 2.0)

    def test_leaves_the_config_as_it_was(self, shapes: Any) -> None:
        config = {"class": "drawing.shapes.Square", "kwargs": {"size": 3}}
        build(config, shapes.Shape, name="shape", colour="blue")
        assert config == {"class": "drawing.shapes.Square", "kwargs": {"size": 3}}

    def test_returns_an_object_as_it_is(self, shapes: Any) -> None:
        square = shapes.Square(2)
        assert build(square, shapes.Shape, name="shape") is square

    @pytest.mark.parametrize(
        "config",
        [
            {"kwargs": {}},
            {"class": "drawing.shapes.Point", "module_path": "drawing.shapes"},
            "drawing.shapes.Point",
            None,
        ],
    )
    def test_needs_class_and_kwargs_only(self, shapes: Any, config: Any) -> None:
        assert message(build, config, shapes.Shape, name="shape") == (
            f"`shape` must be a mapping with `class` and, where needed, `kwargs`; found {config!r}"
        )

    def test_needs_the_right_kind(self, shapes: Any) -> None:
        assert message(build, {"class": "drawing.shapes.Other"}, shapes.Shape, name="shape") == (
            "`shape.class` must be a Shape, found drawing.shapes.Other"
        )

    def test_kwargs_must_be_a_mapping(self, shapes: Any) -> None:
        config = {"class": "drawing.shapes.Square", "kwargs": [3]}
        assert message(build, config, shapes.Shape, name="shape") == (
            "`shape.kwargs` must be a mapping, found [3]"
        )

    def test_names_the_argument_that_has_no_place(self, shapes: Any) -> None:
        config = {"class": "drawing.shapes.Square", "kwargs": {"size": 3, "color": "red"}}
        assert message(build, config, shapes.Shape, name="shape") == (
            "`shape.kwargs` has no place for `color` (did you mean colour?); Square takes size, colour, scale"
        )

    def test_says_that_a_class_takes_no_arguments(self, shapes: Any) -> None:
        config = {"class": "drawing.shapes.Point", "kwargs": {"x": 3}}
        assert message(build, config, shapes.Shape, name="shape") == (
            "`shape.kwargs` has no place for `x`; Point takes no arguments"
        )

    def test_a_class_that_others_are_founded_on_is_not_built(self, shapes: Any) -> None:
        assert message(build, {"class": "drawing.shapes.Idea"}, shapes.Shape, name="shape") == (
            "`shape.class` must be a class that can be built, found drawing.shapes.Idea, on which others are founded"
        )

    def test_leaves_open_arguments_to_the_class(self, shapes: Any) -> None:
        config = {"class": "drawing.shapes.Free", "kwargs": {"anything": 1}}
        assert build(config, shapes.Shape, name="shape").kwargs == {"anything": 1}

    def test_names_the_argument_that_is_missing(self, shapes: Any) -> None:
        assert message(build, {"class": "drawing.shapes.Square"}, shapes.Shape, name="shape") == (
            "`shape.kwargs` do not fit Square: missing a required argument: 'size'"
        )

    def test_an_error_inside_the_constructor_keeps_its_own_name(self, shapes: Any) -> None:
        with pytest.raises(TypeError, match="from inside the constructor"):
            build({"class": "drawing.shapes.Broken"}, shapes.Shape, name="shape")

    def test_what_the_program_gives_is_not_the_files_to_set(self, shapes: Any) -> None:
        config = {"class": "drawing.shapes.Square", "kwargs": {"size": 3, "colour": "red"}}
        assert message(build, config, shapes.Shape, name="shape", colour="blue") == (
            "`shape.kwargs` must not set `colour`: it is given by the program, found 'red'"
        )

    def test_a_loss_without_arguments_says_so(self) -> None:
        from qlib_ext.model.losses.base import Loss

        config = {"class": "qlib_ext.model.losses.mse.MSE", "kwargs": {"k": 3}}
        assert message(build, config, Loss, name="loss") == (
            "`loss.kwargs` has no place for `k`; MSE takes no arguments"
        )


class TestPackages:
    @pytest.fixture(autouse=True)
    def own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("QLIB_EXT_PACKAGES")

    @pytest.mark.parametrize(
        "path", ["drawing.shapes.Point", "subprocess.Popen", "builtins.object", "qlib_extra.X"]
    )
    def test_of_others_nothing_is_imported(self, path: str) -> None:
        for name in ("drawing", "drawing.shapes"):
            sys.modules.pop(name, None)
        said = message(locate, path, name="shape")
        package = path.partition(".")[0]
        assert said == (
            f"`shape.class` must be of one of the packages qlib, qlib_ext, skfolio, torch.nn, torchjd, found {path!r}: where you know "
            f"and trust that code, allow it by the environment, QLIB_EXT_PACKAGES={package}"
        )
        assert "drawing" not in sys.modules

    def test_the_environment_allows_a_package_or_a_module(
        self, shapes: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QLIB_EXT_PACKAGES", "some.other,drawing.shapes")
        assert locate("drawing.shapes.Point", name="shape").__name__ == "Point"
        assert "must be of one of the packages" in message(locate, "drawing.needs_more.Class", name="shape")

    def test_a_package_of_an_extra_is_named_with_the_extra(
        self, shapes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QLIB_EXT_PACKAGES", "drawing")
        monkeypatch.setitem(sys.modules, "skfolio", None)
        (tmp_path / "drawing" / "weights.py").write_text("import skfolio\n", encoding="utf-8")
        importlib.invalidate_caches()
        assert message(locate, "drawing.weights.Point", name="shape") == (
            "`shape.class` drawing.weights.Point needs the package skfolio, found none: pip install 'qlib-ext[portfolio]'"
        )

    def test_a_class_that_an_allowed_module_imported_is_of_its_own_package(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QLIB_EXT_PACKAGES", "drawing")
        assert "must be of one of the packages" in message(locate, "drawing.shapes.Path", name="shape")

    @pytest.mark.parametrize("word", ["drawing/shapes", "x-y", "a..b", "../a"])
    def test_the_variable_names_packages(self, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QLIB_EXT_PACKAGES", f"drawing,{word}")
        assert message(locate, "drawing.shapes.Point", name="shape") == (
            "`QLIB_EXT_PACKAGES` must name packages or modules, separated by commas, such as my_losses,my.package; found "
            f"{word!r}"
        )

    def test_what_the_package_needs_is_allowed(self) -> None:
        for path in ("qlib.contrib.model.gbdt.LGBModel", "torch.nn.Linear", "qlib_ext.model.losses.mse.MSE"):
            assert locate(path, name="x").__name__ == path.rpartition(".")[2]
