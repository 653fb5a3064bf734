"""What the top of a list earns, against loops."""

from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.metrics.top_list import top_excess


def by_loops(score: np.ndarray, ret: np.ndarray, topk: int, cost_bps: float) -> list[float]:
    found, held = [], dict[int, float]()
    for s, r in zip(score, ret, strict=True):
        both = [k for k in range(len(s)) if not np.isnan(s[k]) and not np.isnan(r[k])]
        if not both:
            found.append(float("nan"))
            continue
        best = sorted(both, key=lambda k: -s[k])[:topk]
        weights = {k: 1 / len(best) for k in best}
        traded = sum(abs(weights.get(k, 0) - held.get(k, 0)) for k in {*weights, *held})
        mean = sum(r[k] for k in both) / len(both)
        found.append(sum(r[k] for k in best) / len(best) - mean - cost_bps * 1e-4 * traded)
        held = weights
    return found


@pytest.mark.parametrize(("topk", "cost_bps"), [(1, 0), (3, 15), (20, 10)])
def test_it_is_what_loops_find(topk: int, cost_bps: float) -> None:
    draw = np.random.default_rng(0)
    score, ret = draw.normal(size=(2, 12, 9))
    score[draw.random(score.shape) < 0.3] = np.nan
    ret[draw.random(ret.shape) < 0.2] = np.nan
    score[4] = np.nan
    np.testing.assert_allclose(top_excess(score, ret, topk, cost_bps), by_loops(score, ret, topk, cost_bps))


def test_equal_scores_are_taken_in_the_order_of_the_columns() -> None:
    assert top_excess([[1.0, 1.0]], [[0.04, 0.0]], 1).tolist() == pytest.approx([0.02])


@pytest.mark.parametrize("changes", [{"topk": 0}, {"topk": 1.5}, {"cost_bps": -1}, {"ret": [[1.0]]}])
def test_what_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UserError):
        top_excess(**{"score": [[1.0, 2.0]], "ret": [[0.1, 0.2]], "topk": 1} | changes)  # type: ignore[arg-type]
