import copy
import inspect

import pytest

from qlib_ext.config.rebuildable import Rebuildable


class Plain(Rebuildable):
    pass


class Base(Rebuildable):
    def __init__(self, share=0.5):
        self.share = float(share)


class Method(Base):
    def __init__(self, name, *, window=6, share=0.5):
        super().__init__(share)
        self.name = name.upper()
        self.window = window


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (Plain(), "Plain()"),
        (Base(), "Base()"),
        (Base(1), "Base(share=1)"),
        (Method("a b", share=0.2, window=3), "Method(name='a b', window=3, share=0.2)"),
    ],
)
def test_shows_what_the_class_itself_was_given(made, text):
    assert repr(made) == text
    assert repr(copy.deepcopy(made)) == text


def test_parts_show_themselves():
    class Whole(Rebuildable):
        def __init__(self, parts):
            self.parts = list(parts)

    assert repr(Whole([Base(1), Plain()])) == "Whole(parts=[Base(share=1), Plain()])"


def test_a_signature_stays():
    assert list(inspect.signature(Method).parameters) == ["name", "window", "share"]
    assert list(inspect.signature(Plain).parameters) == []
    with pytest.raises(TypeError, match="unexpected keyword argument 'windows'"):
        Method("a", windows=3)
