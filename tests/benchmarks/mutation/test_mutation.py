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


class TestWilson:
    @pytest.mark.parametrize(("hits", "of"), [(0, 7), (7, 7), (1, 1), (33, 40), (400, 1000)])
    def test_against_scipy(self, hits, of):
        theirs = binomtest(hits, of).proportion_ci(0.95, method="wilson")
        assert wilson(hits, of) == pytest.approx((theirs.low, theirs.high), abs=1e-12)

    @pytest.mark.parametrize(("hits", "of"), [(0, 0), (2, 1), (-1, 3)])
    def test_what_is_no_share(self, hits, of):
        with pytest.raises(ValueError, match="expected 0 <= hits <= of"):
            wilson(hits, of)
