"""A template that computes, rendered in a process of its own, which ends where it takes too much.

A template of a few letters can ask for hours or for all the memory there is: loops in loops, `'a' * 10**10`, `9**9**9`. What
it asks for shows only when it runs, so it runs where the system counts: this file is started as a program too, and knows
nothing of the package there.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping

from jinja2 import TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS, MEMORY, LETTERS = 2, 512 << 20, 256 << 10
# What neither repeats nor grows: it ends at once, whatever the values are.
_HARMLESS = (
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Test,
    nodes.Keyword,
)
_FILTERS = {"default", "d", "int", "float", "lower", "upper", "trim", "string"}


def is_simple(tree: nodes.Template) -> bool:
    """Whether a template fills in values and decides by them, and does nothing else."""
    return all(
        isinstance(node, _HARMLESS) or (isinstance(node, nodes.Filter) and node.name in _FILTERS)
        for node in tree.find_all(nodes.Node)
    )


def render_apart(text: str, given: Mapping[str, str]) -> str:
    """Render a template in a process that may take `SECONDS` and `MEMORY`.

    Raises
    ------
    ValueError
        If it takes more, gives more than `LETTERS`, or is no template.
    """
    question = json.dumps({"text": text, "given": dict(given), "seconds": SECONDS})
    try:
        ended = subprocess.run(
            [sys.executable, "-I", __file__],
            input=question,
            capture_output=True,
            encoding="utf-8",
            timeout=4 * SECONDS + 10,  # by the clock; a machine may be busy
            check=False,
        )
    except subprocess.TimeoutExpired:
        ended = None
    if ended is None or ended.returncode != 0:
        raise ValueError(f"it takes more than {SECONDS} seconds: a workflow's template fills in values")
    answer = json.loads(ended.stdout)
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["text"]


def _limit(seconds: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # a system without it has the clock alone
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def _main() -> None:
    question = json.load(sys.stdin)
    _limit(question["seconds"])
    try:
        text = ImmutableSandboxedEnvironment().from_string(question["text"]).render(question["given"])
        answer = {"text": text}
        if len(text) > LETTERS:
            answer = {"error": f"it gives more than {LETTERS:,} letters"}
    except MemoryError:
        answer = {"error": f"it takes more than {MEMORY >> 20} MiB of memory"}
    except (  # whatever a template can do wrong
        TemplateError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        RuntimeError,
        SyntaxError,
    ) as error:
        answer = {"error": f"{str(error)[:1000] or type(error).__name__}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _main()
