"""The three losses: of the ranks (ordinal), of the spans (contrastive) and of the ratings.

    loss = ordinal + contrast_weight * NT-Xent + rating_weight * cross-entropy of the ten ratings

All are functions of tensors alone, in float32, and finite for every finite input. An ordinal loss
takes cumulative logits (N, 4) of P(rank > k) and ranks (N,) in 0..4, and gives the mean over N.
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

HIGHEST = RANKS - 1
NEVER = -1e4  # a logit whose probability is 0 in float32; minus infinity would make NaN of 0 * it


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def smooth_k2(prediction: Tensor, label: Tensor, *, alpha: float = 4.0, beta: float = 0.25) -> Tensor:
    """Smooth K2 loss: a squared error with a flat zone around the label.

    L = alpha * max(|prediction - label| - beta, 0)^2, the mean over all elements: convex, once
    continuously differentiable, >= 0 (Zhang & Li, EMNLP 2024, arXiv 2406.05326, with k = alpha and
    x0 = beta).

    `prediction`, `label`: of equal shapes, in ranks 0..4. On scores, beta = .25 would be a rank.

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
    log_score = F.logsigmoid(cumulative).logsumexp(-1) - math.log(HIGHEST)
    log_rest = F.logsigmoid(-cumulative).logsumexp(-1) - math.log(HIGHEST)
    label = rank / HIGHEST
    return -(label * log_score + (1 - label) * log_rest).mean()


def mse(cumulative: Tensor, rank: Tensor) -> Tensor:
    """Mean squared error of the expected score against rank / 4."""
    return F.mse_loss(ordinal.score(cumulative), rank.to(cumulative.dtype) / HIGHEST)


def pearson(cumulative: Tensor, rank: Tensor) -> Tensor:
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
    "pearson": pearson,
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
        anchor, target: representations (N, D), of any length.
        positive: weight w (N,) >= 0 of each pair. The mean is over all pairs, not over the weights:
            a batch with few positives does not weigh more, and one without any has loss 0.
        negative: bool (2N, 2N), which view may be pushed from which; a view's own place and its
            partner's are taken out here.
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
    """Which of the 2N views may be negatives: of other anchors and other text, bool (2N, 2N).

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
    """NT-Xent of spans (N, D), with the positives and in-batch negatives of a batch of `Pairs`."""
    negative = in_batch_negatives(batch["anchor_text"], batch["target_text"])
    return ntxent(
        anchor,
        target,
        positive=positives(batch["rank"]),
        negative=negative,
        temperature=temperature,
    )


def dual_loss(outputs: Outputs, batch: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The terms of the loss, each times its weight, 0 where not in use; their sum is minimised."""
    terms = {
        "ordinal": ordinal_loss(
            outputs.cumulative,
            batch["rank"],
            kind=config.loss,
            alpha=config.alpha,
            beta=config.beta,
        ),
        "contrast": outputs.cumulative.new_zeros(()),
        "rating": outputs.cumulative.new_zeros(()),
    }
    if config.contrast_weight:
        contrast = contrast_loss(outputs.anchor, outputs.target, batch, temperature=config.temperature)
        terms["contrast"] = config.contrast_weight * contrast
    if outputs.ratings is not None:
        rating = F.cross_entropy(outputs.ratings.float(), batch["rating"])
        terms["rating"] = config.rating_weight * rating
    return terms
