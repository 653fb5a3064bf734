"""Objects that show the call that makes them again."""

from __future__ import annotations

import functools
import inspect
from typing import Any


class Rebuildable:
    """An object whose `repr` is its constructor's call, with the arguments that it was given: `CQB(beta=0.5, window=6)`.

    Notes
    -----
    Arguments are kept as they were given, whatever a constructor makes of them. Defaults are not shown. An object that comes
    out of one of Qlib's pickles shows none.
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]] = (), {}

    @property
    def learned(self) -> bool:
        """Whether it holds what no call makes again, such as trained weights; of a class that learns, for it to say."""
        return False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in vars(cls):
            return
        constructor = cls.__init__

        @functools.wraps(constructor)
        def keep_and_construct(self: Any, *args: Any, **kwargs: Any) -> None:
            # The first to come here is the class that is made.
            vars(self).setdefault("_given", (args, kwargs))
            constructor(self, *args, **kwargs)

        cls.__init__ = keep_and_construct  # type: ignore[method-assign]

    def __repr__(self) -> str:
        args, kwargs = self._given
        given = inspect.signature(type(self)).bind_partial(*args, **kwargs).arguments
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"
