"""A smooth NDCG at the top of a day's ranking by class, as a loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qlib_ext.checks import above, between, integer, one_of
from qlib_ext.model.losses.base import Loss, as_classes, expected_class


class ApproxNDCG(Loss):
    r"""Exponential of minus the approximate NDCG@k of a day's stocks, with the k of the day.

    Source: MiM-StocR, section 3.2, Eq. 3-8. The smooth rank is from Qin, Liu and Li (2010), "A General
    Approximation Framework for Direct Optimization of Information Retrieval Measures", Information Retrieval
    13.

    .. math::

        f_i = \sum_c \mathrm{softmax}(\mathrm{logits}_i)_c \, c, \qquad
        \pi_i = 1 + \sum_{j \ne i} \sigma(\alpha (f_j - f_i)) \qquad (5, 6)

        \mathrm{NDCG} = \frac{\sum_i t_i \, G(y_i) / \log_2(1 + \pi_i)}
                             {\sum_{r \le k} G(y^*_r) / \log_2(1 + r)} \qquad (3, 4), \qquad
        L = e^{-\mathrm{NDCG}} \qquad (8)

    The rank :math:`\pi_i` is among all N stocks, :math:`y^*` are the relevances in descending order, and the
    gate :math:`t_i` says how far stock i is within the k best by score. NDCG lies in [0, 1], so the loss in
    [1/e, 1].

    MiM-StocR's classification loss is half of it and half `CrossEntropy` (Eq. 9), by `WeightedSum`.

    Parameters
    ----------
    k
        How many stocks count: ``adaptive``, the whole classes from the top that hold at least `share` of the
        day's stocks (Eq. 7, see `adaptive_k`), or a fixed number; all of them on a day that has fewer. The
        paper's ablation "w/o Adaptive-k" has 50.
    share
        Least share of the day's stocks for the adaptive k, in (0, 1].
    alpha
        Sharpness of the smooth comparison of two scores. Eq. 6 has 1; towards infinity the ranks are exact.
    gain
        G(y): ``2^y-1``, or ``2^(y-1)`` as Eq. 4 is printed. The second also pays for class 0.
    relevance
        What score and relevance y are made of: ``class`` c, or ``class_squared`` c².
    cut
        The gate: ``smooth``, or ``hard`` by the order of the scores. See Notes.
    width
        Width of the smooth gate in ranks, as a share of k; towards 0 it becomes the hard one.

    Shapes
    ------
    Logits ``[N, C]`` and class indices ``[N]`` to a scalar; memory grows with N².

    Notes
    -----
    *The cut.* The paper leaves open how the sum ends at k. The **hard** cut keeps the k highest scores (equal
    scores at the end share what is left) and is constant to the gradient. So a stock beyond it acts only as a
    competitor that pushes others down, and its score is lowered however good its class is; those within it
    are raised almost whatever their class is: an order made by chance strengthens itself.
    The **smooth** cut, the default, is :math:`t_i = \sigma((b - \pi_i) / w)` with :math:`w` = `width` · k and
    the one b for which the gates sum to k. Its gradient compares a stock with its neighbours at the cut:
    relevant ones rise, others fall, on either side of it.

    The cut cannot stand at k itself, as in Qin's :math:`\sigma(\beta (k - \pi_i))`. With `alpha` = 1 and
    scores that lie in [0, 4], all approximate ranks are near N/2, far behind k = N/5: every gate is shut and
    no gradient is left. Nor may the gates sum to more than k, or equal scores would let more stocks count
    than the ideal ranking does, and pay better than a perfect order. With k as their sum, equal scores give
    the mean over all orders of what a hard cut keeps, and NDCG cannot exceed 1: any r approximate ranks sum
    to at least 1 + ... + r.

    *Compressed ranks.* For the same reason even the perfect order stays below NDCG = 1 when `alpha` is 1:
    about 0.7 on a day of 300 stocks whose scores equal their classes. The value is a training signal; to
    judge a model take `qlib_ext.metrics.ndcg`.

    *Undefined days.* Where no stock has a positive gain (every stock in class 0) the loss is 1 and its
    gradient zero. Where k = N, nothing is cut.

    Departures
    ----------
    - Gain ``2^y-1`` instead of the printed ``2^(y-1)``, so that class 0 earns nothing.
    - The cut is smooth, and its place b follows the scale of the approximate ranks, as said above.
    - The relevance is the class, as the paper says; the authors' command takes its square (`relevance`).
    """

    classification = True

    def __init__(
        self,
        k: str | int = "adaptive",
        share: float = 0.2,
        alpha: float = 1.0,
        gain: str = "2^y-1",
        relevance: str = "class",
        cut: str = "smooth",
        width: float = 0.1,
    ) -> None:
        super().__init__()
        self.k = one_of("k", k, ("adaptive",)) if isinstance(k, str) else integer("k", k, 1)
        self.share = between("share", share, 0, 1, open_low=True)
        self.alpha = above("alpha", alpha, 0)
        self.gain = one_of("gain", gain, ("2^y-1", "2^(y-1)"))
        self.relevance = one_of("relevance", relevance, ("class", "class_squared"))
        self.cut = one_of("cut", cut, ("smooth", "hard"))
        self.width = above("width", width, 0)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day, a scalar in [1/e, 1]."""
        return torch.exp(-self.ndcg(pred, target))

    def ndcg(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the approximate NDCG@k of a day, a scalar in [0, 1]; 0 where no stock has a gain."""
        logits, classes = as_classes(pred, target)
        worth = torch.arange(logits.shape[1], device=logits.device, dtype=logits.dtype)  # [C]
        if self.relevance == "class_squared":
            worth = worth.square()
        score = expected_class(logits, worth)  # [N]
        gain = torch.exp2(worth) - 1 if self.gain == "2^y-1" else torch.exp2(worth - 1)
        gain = gain[classes]  # [N]
        place = torch.arange(1, len(gain) + 1, device=gain.device, dtype=gain.dtype)  # [N]: 1 ... N

        if self.k == "adaptive":
            k = adaptive_k(classes, self.share)
        else:
            k = torch.full((), min(int(self.k), len(gain)), device=gain.device)
        rank = approximate_rank(score, self.alpha)  # [N]
        gate = _smooth_gate(rank, k, self.width) if self.cut == "smooth" else _hard_gate(score, k)  # [N]

        dcg = (gate * gain / torch.log2(1 + rank)).sum()
        best = gain.sort(descending=True).values * (place <= k)  # [N]
        ideal = (best / torch.log2(1 + place)).sum()
        return dcg / torch.where(ideal > 0, ideal, 1.0)  # without any gain 0 / 1, and a gradient of zeros


def adaptive_k(relevance: Tensor, share: float = 0.2) -> Tensor:
    r"""Return how many stocks the whole classes from the top hold that first reach `share` of the day.

    Source: MiM-StocR, Eq. 7: the smallest :math:`n_4 + n_3 + \dots` of at least ``ceil(share N)``.

    Parameters
    ----------
    relevance
        Class, or a rising function of it, of each stock ``[N]``, N at least 1.
    share
        Share of the stocks, in (0, 1].

    Returns
    -------
    An integer scalar from 1 to N, on the device of `relevance`.
    """
    # A product such as 0.2 * 35 lies a rounding above the whole number that it stands for.
    least = max(1, math.ceil(share * len(relevance) - 1e-9))
    # The last class to be taken is that of stock number `least`, counted from the top.
    last = relevance.sort(descending=True).values[least - 1]
    return (relevance >= last).sum()


def approximate_rank(score: Tensor, alpha: float = 1.0) -> Tensor:
    """Return the smooth rank of each stock, 1 for a score far above all others (MiM-StocR, Eq. 5 and 6).

    Parameters
    ----------
    score
        Scores ``[N]``.
    alpha
        Sharpness of the comparison of two scores.

    Returns
    -------
    ``[N]``, in [1, N]; the ranks sum to N (N + 1) / 2 as the exact ones do.
    """
    score = alpha * score
    above = torch.sigmoid(score[None, :] - score[:, None])  # [N, N]: how far j is above i
    return 0.5 + above.sum(dim=1)  # the stock itself is in the sum with one half


def _smooth_gate(rank: Tensor, k: Tensor, share: float) -> Tensor:
    """Gates sigma((b - rank) / width), ``[N]``, with width = share k and the b for which they sum to k."""
    width = share * k.to(rank.dtype)
    cut = _where_gates_sum_to(k, rank.detach(), width)
    # The gates always sum to k, so b moves with the ranks: a Newton step of length 0 gives it that gradient.
    kept = torch.sigmoid((cut - rank) / width)
    slope = (kept * (1 - kept)).sum().detach() / width
    cut = cut + (kept.sum().detach() - kept.sum()) / slope.clamp_min(torch.finfo(rank.dtype).tiny)
    return torch.where(k < len(rank), torch.sigmoid((cut - rank) / width), 1.0)


@torch.no_grad()
def _where_gates_sum_to(k: Tensor, rank: Tensor, width: Tensor) -> Tensor:
    """Search b in nested grids; nothing here waits for the device, as a loop until convergence would."""
    reach = width * (
        1 + math.log(len(rank))
    )  # beyond all ranks by this, the gates sum to less than 1 from 0 or N
    low, high = rank.min() - reach, rank.max() + reach
    steps = torch.linspace(0, 1, 33, device=rank.device, dtype=rank.dtype)
    for _ in range(10):  # 32^10 = 2^50
        grid = low + (high - low) * steps  # [33]
        kept = torch.sigmoid((grid[:, None] - rank) / width).sum(dim=1)  # [33], rising
        after = (kept < k).sum().clamp(1, 32)
        low, high = grid.take(after - 1), grid.take(after)
    return (low + high) / 2


def _hard_gate(score: Tensor, k: Tensor) -> Tensor:
    """1 for the k highest scores, else 0, ``[N]``; equal scores at the end share what is left of k."""
    score = score.detach()
    last = score.sort(descending=True).values.take(k - 1)
    over, level = score > last, score == last
    return over + level * (k - over.sum()) / level.sum()
