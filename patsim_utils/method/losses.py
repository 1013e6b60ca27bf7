"""The three losses: of the ranks (ordinal), of the spans (contrastive) and of the ratings.

    loss = ordinal + contrast_weight * NT-Xent + rating_weight * cross-entropy of the ten ratings

All are functions of tensors alone, in float32, and finite for every finite input; that span means
are finite rests on their maker (`model.span_mean`). An ordinal loss takes cumulative logits (N, 4)
of P(rank > k) and ranks (N,), here always the 0..4 of a pair, and gives the mean over N.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from patsim_utils.config import Config
from patsim_utils.method import ordinal
from patsim_utils.method.model import Outputs
from patsim_utils.ratings import RANKS

HIGHEST = RANKS - 1  # the highest rank
THRESHOLDS = RANKS - 1  # between the ranks: one cumulative logit for each
NEVER = -1e4  # a logit whose probability is 0 in float32; minus infinity would make NaN of 0 * it


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def smooth_k2(prediction: Tensor, label: Tensor, *, alpha: float = 4.0, beta: float = 0.25) -> Tensor:
    """Smooth K2 loss: a squared error with a flat zone around the label.

    L = alpha * max(|prediction - label| - beta, 0)^2, the mean over all elements: convex, once
    continuously differentiable, >= 0 (Zhang & Li, EMNLP 2024, arXiv 2406.05326, with k = alpha and
    x0 = beta).

    `prediction`, `label`: of equal shapes, in ranks 0..4. Not for scores, on which the default beta
    of .25 is a whole rank.

    >>> smooth_k2(torch.tensor([2.2, 3.0]), torch.tensor([2.0, 2.0]))  # flat; 4 * .75^2
    tensor(1.1250)
    """
    excess = ((prediction - label).abs() - beta).clamp(min=0)
    return (alpha * excess.square()).mean()


def smooth_k2_of_ranks(cumulative: Tensor, rank: Tensor, *, alpha: float = 4.0, beta: float = 0.25) -> Tensor:
    """Smooth K2 of the expected rank against the rank."""
    return smooth_k2(HIGHEST * ordinal.score(cumulative), rank.to(cumulative.dtype), alpha=alpha, beta=beta)


def ordinal_logistic(cumulative: Tensor, rank: Tensor) -> Tensor:
    """Sum over thresholds of the binary cross-entropy of P(rank > k).

    CORAL (Cao et al. 2020, arXiv 1901.07884), which is the all-threshold logistic loss (Rennie &
    Srebro 2005) with equal weights.
    """
    labels = ordinal.levels(rank).to(cumulative.dtype)
    each = F.binary_cross_entropy_with_logits(cumulative, labels, reduction="none")
    return each.sum(-1).mean()


def bce(cumulative: Tensor, rank: Tensor) -> Tensor:
    """Binary cross-entropy of expected score and rank / 4; from logits, and so never log(0)."""
    log_score = F.logsigmoid(cumulative).logsumexp(-1) - math.log(THRESHOLDS)
    log_rest = F.logsigmoid(-cumulative).logsumexp(-1) - math.log(THRESHOLDS)
    label = rank / HIGHEST
    return -(label * log_score + (1 - label) * log_rest).mean()


def mse(cumulative: Tensor, rank: Tensor) -> Tensor:
    """Mean squared error of the expected score against rank / 4."""
    return F.mse_loss(ordinal.score(cumulative), rank.to(cumulative.dtype) / HIGHEST)


def one_minus_pearson_of_ranks(cumulative: Tensor, rank: Tensor) -> Tensor:
    """1 - Pearson correlation of expected scores and ranks in the batch."""
    return one_minus_pearson(ordinal.score(cumulative), rank.to(cumulative.dtype) / HIGHEST)


def one_minus_pearson(prediction: Tensor, label: Tensor, *, eps: float = 1e-6) -> Tensor:
    """1 - Pearson correlation, in [0, 2]; eps keeps a constant batch finite (its gradient is 0)."""
    x = prediction - prediction.mean()
    y = label - label.mean()
    variances = (x.square().sum() + eps) * (y.square().sum() + eps)
    return 1 - (x * y).sum() / variances.sqrt()


ORDINAL_LOSSES: dict[str, Callable[..., Tensor]] = {
    "smooth_k2": smooth_k2_of_ranks,
    "ordinal_logistic": ordinal_logistic,
    "bce": bce,
    "mse": mse,
    "pearson": one_minus_pearson_of_ranks,
}


def ordinal_loss(cumulative: Tensor, rank: Tensor, *, kind: str, alpha: float = 4.0, beta: float = 0.25) -> Tensor:
    """The loss of the ordinal head: logits (N, 4), ranks (N,) int -> scalar, at least float32.

    `kind`: a name of ORDINAL_LOSSES. `alpha`, `beta`: of Smooth K2 alone.
    """
    settings = {}
    if kind == "smooth_k2":
        settings = {"alpha": alpha, "beta": beta}
    return ORDINAL_LOSSES[kind](_at_least_float32(cumulative), rank, **settings)


def ntxent(anchor: Tensor, target: Tensor, *, positive: Tensor, negative: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent: anchor and target of a pair are to be closer than either is to the rest.

    With the 2N views v = [anchor; target], s = cosine / temperature and the partner p(i) of view i:
    l_i = -log( exp(s_i,p(i)) / (exp(s_i,p(i)) + sum over j in negatives of i of exp(s_ij)) ),
    L = sum_i w_i l_i / 2N (Chen et al. 2020, arXiv 2002.05709, eq. 1, with weights and a choice of
    negatives).

    Args:
        anchor, target: representations (N, D), of any norm.
        positive: weight w (N,) >= 0 of each pair. The mean is over all pairs, not over the weights:
            a batch with few positives does not weigh more, and one without any has loss 0.
        negative: bool (2N, 2N), which view may be pushed from which. A view's own place is ignored;
            its partner is always in the denominator, once. A view without negatives has l_i = 0.
    """
    views = F.normalize(_at_least_float32(torch.cat([anchor, target])), dim=-1)  # (2N, D)
    similarity = views @ views.T / temperature
    view = torch.arange(len(views), device=views.device)
    partner = view.roll(len(anchor))
    compared = negative.clone()
    compared[view, view] = False
    compared[view, partner] = True
    log_sum = similarity.masked_fill(~compared, NEVER).logsumexp(-1)
    log_p = similarity[view, partner] - log_sum
    return -(positive.float().repeat(2) * log_p).mean()


def in_batch_negatives(anchor_text: Tensor, target_text: Tensor) -> Tensor:
    """Which of the 2N views may be negatives of which: bool (2N, 2N), symmetric.

    Two views may where their pairs have different anchors, their own texts differ, and neither
    view's text is the anchor of the other's pair.

    `anchor_text`, `target_text`: integer ids (N,) of the phrases; equal ids are equal texts.
    """
    owner = anchor_text.repeat(2)
    text = torch.cat([anchor_text, target_text])
    other_anchor = owner[:, None] != owner
    other_text = text[:, None] != text
    not_anchor_of_other = (owner[:, None] != text) & (text[:, None] != owner)
    return other_anchor & other_text & not_anchor_of_other


def positives(rank: Tensor) -> Tensor:
    """Ranks (N,) -> weights as positives (N,): 1 for rank 4, 1/2 for rank 3 (a synonym), else 0."""
    return (rank.float() - 2).clamp(min=0) / 2


def contrast_loss(anchor: Tensor, target: Tensor, batch: dict[str, Tensor], *, temperature: float = 0.1) -> Tensor:
    """NT-Xent of spans (N, D), with the positives and in-batch negatives of a batch of `Pairs`.

    All pairs of a packed or repeated sequence share their anchor: a batch of a single such sequence
    has no negatives, and its loss is 0.
    """
    negative = in_batch_negatives(batch["anchor_text"], batch["target_text"])
    return ntxent(
        anchor,
        target,
        positive=positives(batch["rank"]),
        negative=negative,
        temperature=temperature,
    )


def dual_loss(outputs: Outputs, batch: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The terms of the loss, each times its weight; their sum is minimised.

    The name is that of the ordinal and the contrastive loss of the method. There are three terms,
    `ordinal`, `contrast` and `rating`: the last is an auxiliary loss. A term not in use is 0.
    """
    terms = {
        "ordinal": ordinal_loss(
            outputs.ordinal_logits,
            batch["rank"],
            kind=config.loss,
            alpha=config.alpha,
            beta=config.beta,
        ),
        "contrast": outputs.ordinal_logits.new_zeros(()),
        "rating": outputs.ordinal_logits.new_zeros(()),
    }
    if config.contrast_weight:
        spans = (outputs.contrast_anchor, outputs.contrast_target)
        contrast = contrast_loss(*spans, batch, temperature=config.temperature)
        terms["contrast"] = config.contrast_weight * contrast
    if outputs.rating_logits is not None:
        rating = F.cross_entropy(outputs.rating_logits.float(), batch["rating"])
        terms["rating"] = config.rating_weight * rating
    return terms
