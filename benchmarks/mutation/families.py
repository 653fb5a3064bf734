"""What is mutated, and which tests each module answers to."""

from __future__ import annotations

from pathlib import Path

FOLDERS = {
    "losses": ("model/losses",),
    "balancers": ("model/balancers",),
    "metrics": ("metrics",),
    "labels": ("data/processors",),
    "strategy": ("backtest", "strategy"),
}
"""A family and its folders, which are the same under qlib_ext and tests."""

# Where the file of the same name is not all that a module answers to.
_MORE = {
    "qlib_ext/backtest/simulation.py": ("tests/backtest/test_exchange.py", "tests/backtest/test_oracles.py"),
    "qlib_ext/metrics/portfolio_measures.py": ("tests/records/test_portfolio.py",),
    "qlib_ext/model/losses/base.py": ("tests/model/losses/test_mse.py", "tests/model/losses/test_laws.py"),
    "qlib_ext/model/balancers/base.py": (
        "tests/model/balancers/test_equal.py",
        "tests/model/balancers/test_laws.py",
    ),
    "qlib_ext/model/balancers/module_state.py": ("tests/model/balancers/test_torchjd.py",),
}


def modules(root: Path, family: str) -> list[Path]:
    """The modules of a family, as paths from the root, by name."""
    return sorted(
        path.relative_to(root)
        for folder in FOLDERS[family]
        for path in (root / "qlib_ext" / folder).glob("*.py")
        if path.name != "__init__.py"
    )


def answers(root: Path, module: Path) -> list[str]:
    """The test files that must notice a fault in a module: the one of its name, unless told otherwise.

    Raises
    ------
    FileNotFoundError
        A module that no test file answers to.
    """
    more = _MORE.get(module.as_posix())
    own = Path("tests") / module.relative_to("qlib_ext").with_name(f"test_{module.name}")
    files = list(more) if more else [own.as_posix()]
    for file in files:
        if not (root / file).is_file():
            raise FileNotFoundError(f"{module} answers to {file}, which is not there: add it to _MORE")
    return files
