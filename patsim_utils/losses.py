"""The losses: seven on the ordinal head's output, three contrastive ones on vectors.

Everything is a function of plain tensors, computed in float32, finite for every finite input.
An ordinal loss takes cumulative logits (N, 4) of P(rank > k) and ranks (N,) in 0..4 and gives a scalar, the
mean over N.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from patsim_utils import ordinal
from patsim_utils.ordinal import RANKS

ORDINAL = ("smooth_k2", "as_run", "coral", "all_threshold", "bce", "mse", "pearson")
CONTRAST = ("ntxent", "cosent", "classes", "none")
NEGATIVES = ("batch", "anchor", "both")
NEVER = -1e4  # stands for minus infinity: exp(NEVER) is 0 in float32, and NEVER * 0 is 0 where -inf * 0 is NaN


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def smooth_k2(prediction: Tensor, label: Tensor, *, alpha: float = 4.0, beta: float = 0.25) -> Tensor:
    """Smooth K2 loss: a squared error with a flat zone around the label.

    L = alpha * max(|prediction - label| - beta, 0)^2, mean over all elements: convex, once continuously
    differentiable, >= 0 (Zhang & Li, EMNLP 2024, arXiv 2406.05326, with k = alpha, x0 = beta).

    Args:
        prediction, label: any equal shapes, in ranks 0..4 (on scores, beta = .25 would be a whole class).

    Example:
        >>> smooth_k2(torch.tensor([2.0, 2.5, 4.0]), torch.tensor([2.0, 2.0, 2.0])).item()
        4.166666507720947
    """
    return (alpha * ((prediction - label).abs() - beta).clamp(min=0).square()).mean()


def coral(cumulative: Tensor, rank: Tensor) -> Tensor:
    """Sum over thresholds of the binary cross-entropy of P(rank > k) (CORAL, Cao et al. 2020, arXiv 1901.07884).

    The same as the all-threshold loss with equal weights.
    """
    return (
        F.binary_cross_entropy_with_logits(cumulative, ordinal.levels(rank).to(cumulative.dtype), reduction="none")
        .sum(-1)
        .mean()
    )


def all_threshold(cumulative: Tensor, rank: Tensor) -> Tensor:
    """All-threshold logistic loss with squared-error weights (Rennie & Srebro 2005).

    sum_k w_k log(1 + exp(-s_k (z - threshold_k))), s_k = 1 where rank > k and else -1,
    w_k = |2 (k - rank) + 1|: thresholds far from the label count more, so that the weights between label and
    prediction add up to the squared distance in ranks.
    """
    k = torch.arange(RANKS - 1, device=rank.device)
    weight = (2 * (k - rank[:, None]) + 1).abs()  # (N, 4)
    each = F.binary_cross_entropy_with_logits(cumulative, ordinal.levels(rank).to(cumulative.dtype), reduction="none")
    return (weight * each).sum(-1).mean()


def as_run(cumulative: Tensor, rank: Tensor, *, alpha: float = 4.0, beta: float = 0.25) -> Tensor:
    """What the source of the idea called Smooth K2 in the program it ran (DeepEvolve, arXiv 2510.06056).

    alpha * BCE(cumulative logits, levels smoothed by .1) + beta * mean((p[k+1] - p[k])^2): alpha and beta mix
    two terms.
    """
    target = ordinal.levels(rank).to(cumulative.dtype) * 0.9 + 0.05
    p = cumulative.sigmoid()
    flatness = (p[:, 1:] - p[:, :-1]).square().mean()
    return alpha * F.binary_cross_entropy_with_logits(cumulative, target) + beta * flatness


def bce(cumulative: Tensor, rank: Tensor) -> Tensor:
    """Binary cross-entropy of the expected score against the score rank / 4, from logits and so never log(0)."""
    k = RANKS - 1
    log_score = torch.logsumexp(F.logsigmoid(cumulative), -1) - math.log(k)
    log_rest = torch.logsumexp(F.logsigmoid(-cumulative), -1) - math.log(k)
    label = rank / k
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
    if kind == "as_run":
        return as_run(cumulative, rank, alpha=alpha, beta=beta)
    if kind == "coral":
        return coral(cumulative, rank)
    if kind == "all_threshold":
        return all_threshold(cumulative, rank)
    if kind == "bce":
        return bce(cumulative, rank)
    prediction, label = ordinal.score(cumulative), rank.float() / (RANKS - 1)
    if kind == "mse":
        return F.mse_loss(prediction, label)
    if kind == "pearson":
        return one_minus_pearson(prediction, label)
    raise ValueError(f"loss {kind!r} is none of {', '.join(ORDINAL)}")


def ntxent(anchor: Tensor, target: Tensor, *, positive: Tensor, negative: Tensor, temperature: float = 0.1) -> Tensor:
    """NT-Xent: a pair's anchor and target are to be closer than either is to the rest of the batch.

    With the 2N views v = [anchor; target], s = cosine / temperature and the partner p(i) of view i:
    l_i = -log( exp(s_i,p(i)) / (exp(s_i,p(i)) + sum over j in negatives of i of exp(s_ij)) ),
    L = sum_i w_i l_i / 2N (Chen et al. 2020, arXiv 2002.05709, eq. 1, with weights and a choice of negatives).

    Args:
        anchor, target: representations (N, D), of any length; normalised here.
        positive: weight (N,) >= 0 of each pair as a positive; with no positive at all, loss and gradient are 0. The
            mean is over all pairs, not over the weights: a batch with few positives shall not shout.
        negative: bool (2N, 2N), which view may be pushed from which; diagonal and partners are taken out here.
        temperature: > 0.
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
    weight = positive.float().repeat(2)
    return -(weight * log_p).mean()


def strangers(anchor_text: Tensor, target_text: Tensor) -> Tensor:
    """Which of the 2N views may be negatives of each other: not of the same anchor phrase, not the same text.

    Args:
        anchor_text, target_text: integer ids (N,) of the phrases; equal ids are equal texts.

    Returns:
        bool (2N, 2N), symmetric.
    """
    owner, text = anchor_text.repeat(2), torch.cat([anchor_text, target_text])
    return (owner[:, None] != owner) & (text[:, None] != text) & (owner[:, None] != text) & (text[:, None] != owner)


def lower_targets(anchor_text: Tensor, code: Tensor, rank: Tensor) -> Tensor:
    """Which views are negatives within an anchor: an anchor's view may be pushed from targets that it rates lower.

    What separates these from the positive is their meaning, not the sequence they stand in, so that a joint encoder
    finds no short cut.

    Args:
        anchor_text, code: integer ids (N,) of the anchor phrase and its class. rank: (N,) int.

    Returns:
        bool (2N, 2N): true only in the rows of anchors and the columns of targets.
    """
    same = (anchor_text[:, None] == anchor_text) & (code[:, None] == code)
    lower = same & (rank[:, None] > rank)
    n = len(rank)
    return F.pad(lower, (n, 0, 0, n))


def positives(rank: Tensor) -> Tensor:
    """Score-aware positives: ranks (N,) -> weights (N,), 1 for an equal phrase, 1/2 for a synonym, else 0."""
    return (rank.float() - 2).clamp(min=0) / 2


def cosent(anchor: Tensor, target: Tensor, rank: Tensor, *, scale: float = 20.0) -> Tensor:
    """CoSENT: pairs of higher rank are to have the higher cosine (Su 2022; in sentence-transformers, too).

    L = log(1 + sum over rank_i > rank_j of exp(scale (cos_j - cos_i))); 0 where all ranks are equal.

    Args:
        anchor, target: representations (N, D). rank: (N,) int.
    """
    cosine = F.cosine_similarity(_at_least_float32(anchor), _at_least_float32(target), dim=-1)
    gap = scale * (cosine[None, :] - cosine[:, None])  # [i, j] = cos_j - cos_i
    gap = gap.masked_fill(~(rank[:, None] > rank[None, :]), NEVER)
    return torch.cat([gap.new_zeros(1), gap.flatten()]).logsumexp(0)


def class_contrast(vectors: Tensor, code: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Pushes the vectors of different classes apart; anchors and targets take no part.

    With s_ij = c_i c_j / temperature: l_i = -mean over j of i's class of log(exp(s_ij) / sum over k != i of exp(s_ik)),
    L = mean of l_i over the rows that share their class with another one, 0 where none does (Khosla et al. 2020, arXiv
    2004.11362, eq. 2). That is what the source of the method had in mind for its contrastive term; its own program
    multiplied the minus infinity of k = i by a mask of 0, which is NaN in every step.

    Args:
        vectors: class vectors (N, D) of a batch's rows, of length one or, for `unknown`, zero.
        code: integer ids (N,) of the classes.
    """
    similarity = _at_least_float32(vectors) @ _at_least_float32(vectors).T / temperature
    itself = torch.eye(len(code), dtype=torch.bool, device=code.device)
    same = (code[:, None] == code) & ~itself
    log_p = similarity - similarity.masked_fill(itself, NEVER).logsumexp(-1, keepdim=True)
    partners = same.sum(-1)
    each = -(log_p * same).sum(-1) / partners.clamp(min=1)  # (N,)
    return each.sum() / (partners > 0).sum().clamp(min=1)


def contrast_loss(
    anchor: Tensor,
    target: Tensor,
    *,
    kind: str,
    rank: Tensor,
    anchor_text: Tensor,
    target_text: Tensor,
    code: Tensor,
    negatives: str = "batch",
    temperature: float = 0.1,
) -> Tensor:
    """The contrastive loss `kind` on span representations (N, D) of anchors and targets -> scalar float32.

    `negatives` of NT-Xent: the rest of the "batch", lower-rated targets of the same "anchor", or "both".
    """
    if kind == "ntxent":
        allowed = torch.zeros(2 * len(rank), 2 * len(rank), dtype=torch.bool, device=rank.device)
        if negatives != "anchor":
            allowed |= strangers(anchor_text, target_text)
        if negatives != "batch":
            allowed |= lower_targets(anchor_text, code, rank)
        return ntxent(anchor, target, positive=positives(rank), negative=allowed, temperature=temperature)
    if kind == "cosent":
        return cosent(anchor, target, rank)
    raise ValueError(f"contrast {kind!r} is none of {', '.join(CONTRAST)}")
