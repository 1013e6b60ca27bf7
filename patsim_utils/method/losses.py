"""Ordinal and contrastive losses: functions of tensors alone, in float32, finite for every finite input.

An ordinal loss takes cumulative logits (N, 4) of P(rank > k) and ranks (N,) in 0..4 and gives the mean over N.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from patsim_utils.config import Config
from patsim_utils.method import ordinal
from patsim_utils.method.model import Outputs
from patsim_utils.ratings import RANKS

NEVER = -1e4  # stands for minus infinity: exp(NEVER) is 0 in float32, and NEVER * 0 is 0 where -inf * 0 is NaN


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def smooth_k2(prediction: Tensor, label: Tensor, *, alpha: float = 4.0, beta: float = 0.25) -> Tensor:
    """Smooth K2 loss: a squared error with a flat zone around the label.

    L = alpha * max(|prediction - label| - beta, 0)^2, mean over all elements: convex, once continuously
    differentiable, >= 0 (Zhang & Li, EMNLP 2024, arXiv 2406.05326, with k = alpha, x0 = beta).

    `prediction`, `label`: any equal shapes, in ranks 0..4 (on scores, beta = .25 would be a whole class).
    """
    return (alpha * ((prediction - label).abs() - beta).clamp(min=0).square()).mean()


def ordinal_logistic(cumulative: Tensor, rank: Tensor) -> Tensor:
    """Sum over thresholds of the binary cross-entropy of P(rank > k).

    CORAL (Cao et al. 2020, arXiv 1901.07884), which is the all-threshold logistic loss (Rennie & Srebro 2005) with
    equal weights.
    """
    levels = ordinal.levels(rank).to(cumulative.dtype)
    return F.binary_cross_entropy_with_logits(cumulative, levels, reduction="none").sum(-1).mean()


def bce(cumulative: Tensor, rank: Tensor) -> Tensor:
    """Binary cross-entropy of the expected score against the score rank / 4, from logits and so never log(0)."""
    log_score, log_rest = (F.logsigmoid(sign * cumulative).logsumexp(-1) - math.log(RANKS - 1) for sign in (1, -1))
    label = rank / (RANKS - 1)
    return -(label * log_score + (1 - label) * log_rest).mean()


def one_minus_pearson(prediction: Tensor, label: Tensor, *, eps: float = 1e-6) -> Tensor:
    """1 - Pearson correlation of the batch, in [0, 2]; eps keeps a constant batch finite (its gradient is 0)."""
    x, y = prediction - prediction.mean(), label - label.mean()
    return 1 - (x * y).sum() / torch.sqrt((x.square().sum() + eps) * (y.square().sum() + eps))


def ordinal_loss(cumulative: Tensor, rank: Tensor, *, kind: str, alpha: float = 4.0, beta: float = 0.25) -> Tensor:
    """The loss `kind` of the ordinal head: cumulative logits (N, 4), ranks (N,) int -> scalar, at least float32."""
    cumulative = _at_least_float32(cumulative)
    if kind == "smooth_k2":
        return smooth_k2(ordinal.score(cumulative) * (RANKS - 1), rank.float(), alpha=alpha, beta=beta)
    if kind == "ordinal_logistic":
        return ordinal_logistic(cumulative, rank)
    if kind == "bce":
        return bce(cumulative, rank)
    prediction, label = ordinal.score(cumulative), rank.float() / (RANKS - 1)
    if kind == "mse":
        return F.mse_loss(prediction, label)
    if kind == "pearson":
        return one_minus_pearson(prediction, label)
    raise ValueError(f"there is no loss {kind!r}")


def ntxent(anchor: Tensor, target: Tensor, *, positive: Tensor, negative: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent: a pair's anchor and target are to be closer than either is to the rest of the batch.

    With the 2N views v = [anchor; target], s = cosine / temperature and the partner p(i) of view i:
    l_i = -log( exp(s_i,p(i)) / (exp(s_i,p(i)) + sum over j in negatives of i of exp(s_ij)) ),
    L = sum_i w_i l_i / 2N (Chen et al. 2020, arXiv 2002.05709, eq. 1, with weights and a choice of negatives).

    Args:
        anchor, target: representations (N, D), of any length.
        positive: weight (N,) >= 0 of each pair as a positive. The mean is over all pairs, not over the weights, so that
            a batch with few positives does not weigh more; without any, loss and gradient are 0.
        negative: bool (2N, 2N), which view may be pushed from which; diagonal and partners are taken out here.
    """
    view = F.normalize(_at_least_float32(torch.cat([anchor, target])), dim=-1)  # (2N, D)
    similarity = view @ view.T / temperature
    n = len(anchor)
    i = torch.arange(2 * n, device=view.device)
    partner = i.roll(n)
    allowed = negative.clone()
    allowed[i, i] = False
    allowed[i, partner] = True
    log_p = similarity[i, partner] - similarity.masked_fill(~allowed, NEVER).logsumexp(-1)
    return -(positive.float().repeat(2) * log_p).mean()


def in_batch_negatives(anchor_text: Tensor, target_text: Tensor) -> Tensor:
    """Which of the 2N views may be negatives of each other, bool (2N, 2N): of other anchors and of other text.

    `anchor_text`, `target_text`: integer ids (N,) of the phrases; equal ids are equal texts.
    """
    owner, text = anchor_text.repeat(2), torch.cat([anchor_text, target_text])
    return (owner[:, None] != owner) & (text[:, None] != text) & (owner[:, None] != text) & (text[:, None] != owner)


def positives(rank: Tensor) -> Tensor:
    """Score-aware positives: ranks (N,) -> weights (N,), 1 for an equal phrase, 1/2 for a synonym, else 0."""
    return (rank.float() - 2).clamp(min=0) / 2


def contrast_loss(anchor: Tensor, target: Tensor, batch: dict[str, Tensor], *, temperature: float = 0.1) -> Tensor:
    """NT-Xent of span representations (N, D), with the positives and in-batch negatives of a batch of `Pairs`."""
    negative = in_batch_negatives(batch["anchor_text"], batch["target_text"])
    return ntxent(anchor, target, positive=positives(batch["rank"]), negative=negative, temperature=temperature)


def dual_loss(outputs: Outputs, batch: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The three terms of the loss, each times its weight, 0 where not in use; their sum is what is minimised."""
    c = config
    by_rank = ordinal_loss(outputs.cumulative, batch["rank"], kind=c.loss, alpha=c.alpha, beta=c.beta)
    contrast = rating = outputs.cumulative.new_zeros(())
    if c.contrast_weight:
        contrast = contrast_loss(outputs.anchor, outputs.target, batch, temperature=c.temperature)
    if outputs.ratings is not None:
        rating = F.cross_entropy(outputs.ratings.float(), batch["rating"])
    return {"ordinal": by_rank, "contrast": c.contrast_weight * contrast, "rating": c.rating_weight * rating}
