"""All mutants of a family, and the sample of them that is tried."""

from __future__ import annotations

import ast
import itertools
import random
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

from benchmarks.mutation.families import modules


@dataclass(frozen=True, order=True)
class Mutant:
    """One fault: the `occurrence`-th place in a module at which an operator of cosmic-ray changes something."""

    module: str
    line: int
    column: int
    operator: str
    occurrence: int

    def source(self, root: Path) -> str:
        """The module's text with the fault in it."""
        code = (root / self.module).read_text(encoding="utf-8")
        mutated = mutate_code(code, get_operator(self.operator)(), self.occurrence)
        if mutated is None:
            raise LookupError(f"{self} is nowhere in {self.module}")
        return mutated

    def is_python(self, root: Path) -> bool:
        """Whether it is Python: cosmic-ray takes the stars of `**given` and of a bare `*` for operators too."""
        try:
            ast.parse(self.source(root))
        except SyntaxError:
            return False
        return True


def _annotations(code: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the type hints are: `int | None` says nothing at run time, whatever its operator is changed to."""
    spans = []
    for node in ast.walk(ast.parse(code)):
        hints = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        for hint in hints:
            if isinstance(hint, ast.expr):
                assert hint.end_lineno is not None
                assert hint.end_col_offset is not None
                spans.append(((hint.lineno, hint.col_offset), (hint.end_lineno, hint.end_col_offset)))
    return spans


def all_mutants(root: Path, family: str) -> list[Mutant]:
    """Every mutant of a family by cosmic-ray's operators that need no settings, type hints left out."""
    found = []
    for module in modules(root, family):
        code = (root / module).read_text(encoding="utf-8")
        nodes, hints = list(ast_nodes(get_ast(code))), _annotations(code)
        for name in operator_names():
            kind = get_operator(name)
            if kind.arguments():
                continue
            places = [place for node in nodes for place in kind().mutation_positions(node)]
            found += [
                Mutant(module.as_posix(), line, column, name, occurrence)
                for occurrence, ((line, column), _) in enumerate(places)
                if not any(begin <= (line, column) < end for begin, end in hints)
            ]
    return sorted(found)


def sample(root: Path, mutants: list[Mutant], size: int, seed: int) -> list[Mutant]:
    """So many of them in an order of chance: a smaller sample is the beginning of a larger one.

    One that is no Python is left out: any test would notice it.
    """
    shuffled = list(mutants)
    random.Random(seed).shuffle(shuffled)
    return list(itertools.islice((mutant for mutant in shuffled if mutant.is_python(root)), size))
