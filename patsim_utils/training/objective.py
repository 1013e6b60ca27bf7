"""What a training minimises: the method's loss on rated pairs, and a teacher's probabilities on the others."""

from torch import Tensor
from torch.nn import functional as F

from patsim_utils.config import Config
from patsim_utils.method.losses import dual_loss
from patsim_utils.method.model import Outputs
from patsim_utils.ratings import ABOVE_COLUMNS

PER_PAIR = ("rank", "rating", "anchor_text", "target_text")  # of a batch: what the loss reads of each pair


def objective(outputs: Outputs, batch: dict[str, Tensor], config: Config) -> dict[str, Tensor]:
    """The terms of the loss, whose sum is minimised: those of `dual_loss`.

    Where a teacher has labelled some of the N pairs (`teacher` in the batch), these are compared with its labels, by
    `teacher_loss`; each term is the mean over all pairs.
    """
    if "teacher" not in batch:
        return dual_loss(outputs, batch, config)
    labelled = batch["teacher"][:, 0].isfinite()
    share = labelled.float().mean()
    zero = outputs.ordinal_logits.sum() * 0
    terms = {"ordinal": zero, "contrast": zero, "rating": zero}
    if not labelled.all():
        rated = {name: batch[name][~labelled] for name in PER_PAIR}
        for name, term in dual_loss(_rows(outputs, ~labelled), rated, config).items():
            terms[name] = terms[name] + (1 - share) * term
    if labelled.any():
        learned = teacher_loss(_rows(outputs, labelled), batch["teacher"][labelled])
        for name, term in learned.items():
            terms[name] = terms[name] + share * term
    return terms


def teacher_loss(outputs: Outputs, teacher: Tensor) -> dict[str, Tensor]:
    """Cross-entropy to a teacher's probabilities (Hinton et al. 2015, arXiv 1503.02531), the mean over N pairs.

    `teacher` (N, 14): TEACHER_COLUMNS. `ordinal` is the sum over the four thresholds, as in `ordinal_logistic`;
    `rating` is over the ten ratings, where the student learns them.
    """
    levels = len(ABOVE_COLUMNS)
    above = teacher[:, :levels]
    ordinal = F.binary_cross_entropy_with_logits(outputs.ordinal_logits.float(), above, reduction="none")
    terms = {"ordinal": ordinal.sum(-1).mean()}
    if outputs.rating_logits is not None:
        ratings = teacher[:, levels:]
        ratings = ratings / ratings.sum(-1, keepdim=True)  # they are stored with four digits
        terms["rating"] = F.cross_entropy(outputs.rating_logits.float(), ratings)
    return terms


def _rows(outputs: Outputs, rows: Tensor) -> Outputs:
    """The outputs of some of the pairs; `rows` is bool (N,)."""
    chosen = {name: None if value is None else value[rows] for name, value in vars(outputs).items()}
    return Outputs(**chosen)
