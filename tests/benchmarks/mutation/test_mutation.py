import csv
import importlib
from pathlib import Path

import pytest
from scipy.stats import binomtest

from benchmarks.mutation.families import FOLDERS, answers, modules
from benchmarks.mutation.score import wilson

ROOT = Path(__file__).parents[3]


class TestFamilies:
    @pytest.mark.parametrize("family", FOLDERS)
    def test_every_module_answers_to_a_test(self, family):
        found = modules(ROOT, family)
        assert found
        assert all(answers(ROOT, module) for module in found)

    def test_a_module_without_tests(self, tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r"answers to tests/metrics/test_luck\.py, which is not there"
        ):
            answers(tmp_path, Path("qlib_ext/metrics/luck.py"))


class TestSample:
    """Needs cosmic-ray, which only a mutation run asks for."""

    MADE = "def made(y, *, x: int | None, **more):\n    return {**more, 'x': x * 2}\n"

    @pytest.fixture
    def mutants(self):
        pytest.importorskip("cosmic_ray", reason="cosmic-ray makes the mutants: pip install cosmic-ray")
        return importlib.import_module("benchmarks.mutation.mutants")

    @pytest.fixture
    def root(self, tmp_path):
        (tmp_path / "qlib_ext" / "strategy").mkdir(parents=True)
        (tmp_path / "qlib_ext" / "strategy" / "made.py").write_text(self.MADE)
        return tmp_path

    def test_type_hints_and_what_is_no_python_are_left_out(self, mutants, root):
        drawn = mutants.sample(root, mutants.all_mutants(root, "strategy"), 1000, seed=0)
        lines = {line for mutant in drawn for line in mutant.source(root).splitlines()}
        assert "def made(y, /, x: int | None, **more):" in lines  # which is Python, and counts
        assert {"    return {**more, 'x': x + 2}", "    return {**more, 'x': x * 3}"} <= lines
        assert {line for line in lines if "int" in line and "int | None" not in line} == set()
        for mutant in drawn:
            compile(mutant.source(root), "made", "exec")

    def test_a_smaller_one_is_the_beginning_of_a_larger_one(self, mutants, root):
        every = mutants.all_mutants(root, "strategy")
        assert mutants.sample(root, every, 4, seed=3) == mutants.sample(root, every, 9, seed=3)[:4]
        assert mutants.sample(root, every, 9, seed=3) != mutants.sample(root, every, 9, seed=4)


class TestPage:
    """docs/mutation.md says what benchmarks/mutation/mutants.csv holds."""

    @pytest.fixture
    def page(self):
        return (ROOT / "docs" / "mutation.md").read_text(encoding="utf-8")

    @pytest.fixture
    def rows(self):
        return self.read("mutants.csv")

    @pytest.fixture
    def untouched(self):
        return self.read("untouched.csv")

    @staticmethod
    def read(name):
        with (ROOT / "benchmarks" / "mutation" / name).open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))

    @pytest.mark.parametrize("family", FOLDERS)
    def test_the_score(self, page, rows, family):
        outcomes = [row["outcome"] for row in rows if row["family"] == family]
        hits = sum(outcome in {"killed", "timeout"} for outcome in outcomes)
        low, high = wilson(hits, len(outcomes))
        (line,) = [line for line in page.splitlines() if line.startswith(f"| {family} |")]
        told = f"| {len(outcomes)} | {hits} | {hits / len(outcomes):.0%} | {low:.0%} to {high:.0%} |"
        assert line.endswith(told)

    def test_the_score_of_the_untouched_sample(self, page, untouched):
        hits = sum(row["outcome"] != "survived" for row in untouched)
        low, high = wilson(hits, len(untouched))
        (line,) = [line for line in page.splitlines() if line.endswith(f"| {low:.0%} to {high:.0%} |")]
        assert f"| {len(untouched)} | {hits} | {hits / len(untouched):.0%} |" in line
        assert line.startswith("| strategy, third sample, untouched |")

    def test_survivors_are_named(self, page, rows):
        survivors = {
            f"`{Path(row['module']).name}` {row['line']}" for row in rows if row["outcome"] == "survived"
        }
        assert {place for place in survivors if place not in page} == set()

    def test_no_mutant_counts_twice(self, rows):
        keys = [(row["module"], row["operator"], row["occurrence"]) for row in rows]
        assert len(keys) == len(set(keys))


class TestWilson:
    @pytest.mark.parametrize(("hits", "of"), [(0, 7), (7, 7), (1, 1), (33, 40), (400, 1000)])
    def test_against_scipy(self, hits, of):
        theirs = binomtest(hits, of).proportion_ci(0.95, method="wilson")
        assert wilson(hits, of) == pytest.approx((theirs.low, theirs.high), abs=1e-12)

    @pytest.mark.parametrize(("hits", "of"), [(0, 0), (2, 1), (-1, 3)])
    def test_what_is_no_share(self, hits, of):
        with pytest.raises(ValueError, match="expected 0 <= hits <= of"):
            wilson(hits, of)
