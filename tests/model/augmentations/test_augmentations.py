import math

import pytest
import torch
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.model.augmentations.crop import Crop
from qlib_ext.model.augmentations.jitter import Jitter
from qlib_ext.model.augmentations.scale import Scale
from qlib_ext.model.augmentations.shift import Shift


def windows(stocks=3000, days=10, fields=2):
    """No value is 0."""
    return torch.randn(stocks, days, fields, generator=torch.Generator().manual_seed(0)).abs() + 0.5


def drawn(augmentation, features):
    return augmentation(features, torch.Generator().manual_seed(7))


class TestCrop:
    def test_keeps_last_days_and_takes_the_rest_for_missing(self):
        features = windows()
        found = drawn(Crop(shortest=0.35, probability=1.0), features)
        lengths = (found[:, :, 0] != 0).sum(dim=1)
        for stock, length in enumerate(lengths.tolist()):
            assert torch.equal(found[stock, 10 - length :], features[stock, 10 - length :])
            assert (found[stock, : 10 - length] == 0).all()
        counts = torch.bincount(lengths, minlength=11)
        assert (counts[:4] == 0).all()  # ceil(3.5) days at least
        assert stats.chisquare(counts[4:].numpy()).pvalue > 1e-3

    def test_the_last_day_stays_whatever_the_length(self):
        features = windows()
        found = drawn(Crop(shortest=0.01, probability=1.0), features)
        assert torch.equal(found[:, -1], features[:, -1])
        assert ((found[:, -2] == 0).all(dim=1)).any()

    def test_of_the_whole_window_is_none(self):
        features = windows()
        assert torch.equal(drawn(Crop(shortest=1.0, probability=1.0), features), features)

    @pytest.mark.parametrize("wrong", [0, 1.1])
    def test_messages(self, wrong):
        with pytest.raises(UserError, match=rf"`shortest` must lie in \(0, 1\], found {wrong}"):
            Crop(shortest=wrong)


class TestJitter:
    @pytest.mark.parametrize("sigma", [0.03, 1.5])
    def test_is_normal_with_the_deviation(self, sigma):
        features = windows()
        noise = (drawn(Jitter(sigma=sigma, probability=1.0), features) - features).flatten().numpy()
        assert stats.kstest(noise / sigma, "norm").pvalue > 1e-3

    def test_is_independent_over_days_and_fields(self):
        features = windows(stocks=20_000, days=3)
        noise = (drawn(Jitter(sigma=1.0, probability=1.0), features) - features).flatten(1)  # [N, 6]
        correlation = torch.corrcoef(noise.T) - torch.eye(6)
        assert correlation.abs().max() < 5 / math.sqrt(20_000)

    def test_messages(self):
        with pytest.raises(UserError, match="`sigma` must be above 0, found 0"):
            Jitter(sigma=0)


class TestScale:
    def test_multiplies_a_window_by_one_lognormal_number(self):
        features = windows()
        factor = drawn(Scale(sigma=0.3, probability=1.0), features) / features  # [N, T, F]
        torch.testing.assert_close(factor, factor[:, :1, :1].expand_as(factor))
        assert stats.kstest(factor[:, 0, 0].log().numpy() / 0.3, "norm").pvalue > 1e-3

    def test_messages(self):
        with pytest.raises(UserError, match="`sigma` must be above 0, found -1"):
            Scale(sigma=-1)


class TestShift:
    def test_moves_the_past_towards_the_last_day(self):
        features = windows()
        found = drawn(Shift(max_days=3, probability=1.0), features)
        moved = (found[:, :, 0] == 0).sum(dim=1)
        for stock, days in enumerate(moved.tolist()):
            assert torch.equal(found[stock, days:], features[stock, : 10 - days])
            assert (found[stock, :days] == 0).all()
        counts = torch.bincount(moved, minlength=4)
        assert counts[0] == 0
        assert len(counts) == 4
        assert stats.chisquare(counts[1:].numpy()).pvalue > 1e-3

    def test_further_than_the_window(self):
        with pytest.raises(
            UserError, match="`max_days` of Shift must be below the window's 10 days, found 10"
        ):
            drawn(Shift(max_days=10), windows())
        assert torch.isfinite(drawn(Shift(max_days=9), windows())).all()

    def test_messages(self):
        with pytest.raises(UserError, match="`max_days` must be at least 1, found 0"):
            Shift(max_days=0)


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [
        (Crop(shortest=0.5, probability=1.0), [[0.0, 0.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]),
        (Shift(max_days=2, probability=1.0), [[0.0, 1.0, 2.0, 3.0], [0.0, 5.0, 6.0, 7.0]]),
        (
            Scale(sigma=0.5, probability=1.0),
            [[1.059881, 2.119762, 3.179644, 4.239525], [7.171314, 8.605577, 10.03984, 11.474103]],
        ),
        (
            Jitter(sigma=0.5, probability=1.0),
            [[1.058157, 2.360651, 3.281775, 4.571528], [5.429504, 6.352796, 6.829722, 7.364005]],
        ),
    ],
    ids=["Crop", "Shift", "Scale", "Jitter"],
)
def test_golden(augmentation, expected):
    features = torch.arange(1.0, 9.0).view(2, 4, 1)
    found = augmentation(features, torch.Generator().manual_seed(1)).squeeze(2)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=0)
