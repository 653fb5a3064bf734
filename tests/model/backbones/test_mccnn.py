from dataclasses import replace

import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model.backbones.mccnn import MCCNN


def naive(weights, window, layers, filters):
    """Embedding of one stock's window `[T, F]`: every field in a branch of its own, then all together."""
    joined = []
    for f in range(window.shape[1]):
        branch = [[float(x) for x in window[:, f]]]  # channels of days
        for i in range(layers):
            w, b = (weights[f"branches.{3 * i}.{name}"] for name in ("weight", "bias"))
            days, reach = len(branch[0]), w.shape[2] // 2
            outputs = []
            for channel in range(f * filters, (f + 1) * filters):
                row = []
                for day in range(days):
                    total = float(b[channel])
                    for c, values in enumerate(branch):
                        for k in range(w.shape[2]):
                            if 0 <= day + k - reach < days:
                                total += float(w[channel, c, k]) * values[day + k - reach]
                    row.append(max(0.0, total))
                outputs.append([max(row[day : day + 2]) for day in range(0, days, 2)])
            branch = outputs
        joined += [x for channel in branch for x in channel]
    w, b = weights["join.weight"], weights["join.bias"]
    return (w @ torch.tensor(joined) + b).relu()


def built(lookback_days=4, num_features=6, **kwargs):
    torch.manual_seed(0)
    small = {"hidden_size": 5, "filters": 3, "filter_days": 3}
    return MCCNN(num_features=num_features, lookback_days=lookback_days, **{**small, **kwargs})


@pytest.mark.parametrize(("days", "layers"), [(4, 1), (5, 2), (8, 3)])
def test_is_branch_by_branch_what_the_equations_say(make_day, days, layers):
    panel = make_day(stocks=3)
    windows = torch.randn(len(panel), days, 2, generator=torch.Generator().manual_seed(0))
    backbone = built(lookback_days=days, num_features=2, layers=layers)
    expected = [naive(backbone.state_dict(), window, layers, 3) for window in windows]
    found = backbone(replace(panel, features=windows))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_a_branch_sees_its_own_field_alone():
    backbone = built(layers=2)
    window = torch.randn(1, 6, 4)
    before = backbone.branches(window)
    window[:, 2] += 1.0
    changed = (backbone.branches(window) != before).any(dim=2).squeeze(0)
    assert changed.view(6, 3).any(dim=1).tolist() == [False, False, True, False, False, False]


def test_stocks_do_not_see_each_other(make_day):
    panel = make_day()
    backbone = built()
    before = backbone(panel)
    panel.features[0] += 1
    after = backbone(panel)
    assert not torch.equal(after[0], before[0])
    torch.testing.assert_close(after[1:], before[1:])


@pytest.mark.parametrize("lookback_days", [4, 5, 61])
def test_any_window_does(make_day, lookback_days):
    panel = make_day()
    features = torch.randn(len(panel), lookback_days, 6)
    assert built(lookback_days=lookback_days)(replace(panel, features=features)).shape == (len(panel), 5)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        (
            {"lookback_days": 3},
            UserError,
            "MCCNN halves the window 2 times and needs a dataset with `lookback_days` of at least 4, found 3: .*`layers`",
        ),
        (
            {"filter_days": 2},
            UserError,
            "`filter_days` must be odd, to have a day in the middle, found 2",
        ),
        ({"filters": 0}, UserError, "`filters` must be at least 1, found 0"),
        ({"layers": 0}, UserError, "`layers` must be at least 1, found 0"),
        ({"hidden_size": 0}, UserError, "`hidden_size` must be at least 1, found 0"),
        ({"dropout": 1}, UserError, r"`dropout` must lie in \[0, 1\), found 1"),
    ],
)
def test_messages(kwargs, error, message):
    with pytest.raises(error, match=message):
        built(**kwargs)
