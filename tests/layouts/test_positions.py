"""A packed target is read as if it stood alone; encoders with which this cannot be are refused."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.layouts import positions
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.method import encoder

KINDS = ["bert", "roberta", "mpnet", "deberta-v2", "modernbert"]


def test_the_mask_follows_its_rule() -> None:
    block = torch.tensor([[0, 0, 1, 1, 2, -1]])
    mask = positions.visible(block)[0, 0]
    for q, own in enumerate(block[0].tolist()):
        for k, other in enumerate(block[0].tolist()):
            assert mask[q, k].item() == ((own >= 0 and other == 0) or own == other)
    assert mask.any(-1).all()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "nomic_bert"}, "nomic_bert: a target's score could depend on its place"),
        (
            {"model_type": "deberta-v2", "conv_kernel_size": 3},
            "deberta-v2 and its convolution, which reads neighbouring targets",
        ),
    ],
)
def test_an_encoder_that_cannot_keep_targets_apart_is_refused(config: dict, reason: str) -> None:
    backbone = SimpleNamespace(config=SimpleNamespace(**config))
    with pytest.raises(InputError) as error:
        positions.check(backbone, "packed")
    assert str(error.value) == f"layout 'packed' does not work with {reason}; use layout 'pair'"
    positions.check(backbone, "pair")


@pytest.mark.parametrize("kind", ["mpnet", "deberta-v2"])
def test_a_version_of_transformers_without_the_replaced_method_is_refused(tiny_backbone, monkeypatch, kind) -> None:
    backbone = encoder.load_backbone(tiny_backbone(kind))
    positions.check(backbone, "packed")
    name = positions.RELATIVE[kind][0]
    monkeypatch.delattr(type(backbone.encoder), name)
    with pytest.raises(InputError) as error:
        positions.check(backbone, "packed")
    reason = f"does not work with {kind} of this version of transformers (it has no {name})"
    assert str(error.value) == f"layout 'packed' {reason}; use layout 'pair'"


def test_a_first_position_lies_behind_that_of_padding_where_an_encoder_counts_so() -> None:
    kinds = {"bert": 0, "roberta": 2, "deberta-v2": 0, "modernbert": 0}
    for kind, first in kinds.items():
        assert positions.first_position(SimpleNamespace(model_type=kind, pad_token_id=1)) == first
    assert positions.first_position(SimpleNamespace(model_type="mpnet", pad_token_id=None)) == 1
    assert positions.first_position(SimpleNamespace(model_type="mpnet")) == 1


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_absolute_positions_start_where_the_encoder_s_own_do(tiny_backbone, kind: str) -> None:
    backbone, tokens = encoder.load_backbone(tiny_backbone(kind)).eval(), torch.randn(2, 40, 32)
    batch = {"position_ids": torch.arange(40).expand(2, -1), "block": torch.zeros(2, 40, dtype=torch.long)}
    with torch.inference_mode():
        own = backbone(inputs_embeds=tokens, output_hidden_states=True).hidden_states
        ours = encoder.hidden_states(backbone, tokens, batch)
    torch.testing.assert_close(ours[-1], own[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_positions_in_their_natural_order_give_the_encoder_s_own_states(tiny_backbone, kind: str) -> None:
    backbone, tokens = encoder.load_backbone(tiny_backbone(kind)).eval(), torch.randn(2, 40, 32)
    natural = {"position_ids": torch.arange(40).expand(2, -1)}
    with torch.inference_mode():
        own, ours = (
            encoder.hidden_states(backbone, tokens, natural | {"block": torch.full((2, 40), block)}) for block in (0, 1)
        )
    for one, other in zip(own, ours, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["packed", "repeated"])
def test_a_packed_target_has_the_states_that_it_has_alone(
    tiny_backbone, pairs_frame: pd.DataFrame, kind: str, layout: str
) -> None:
    folder = tiny_backbone(kind)
    backbone = encoder.load_backbone(folder).eval()
    pairs = Pairs(pairs_frame, encoder.load_tokenizer(folder), layout=layout, titles=cpc.titles())

    def states(*groups: list[int]) -> torch.Tensor:
        """States of the first token of each row's anchor and target (N, 2, W)."""
        batch = pairs.collate([pairs[np.array(rows)] for rows in groups])
        tokens = backbone.get_input_embeddings()(batch["input_ids"])
        last = encoder.hidden_states(backbone, tokens, batch)[-1].flatten(0, 1)
        return torch.stack([last[batch["anchor_span"][:, 0]], last[batch["target_span"][:, 0]]], dim=1)

    with torch.inference_mode():
        together = states([0, 1, 2, 3], [6, 7])  # the second sequence is padded
        alone = torch.cat([states([row]) for row in (0, 1, 2, 3, 6, 7)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3
    for name in positions.RELATIVE.get(kind, ()):
        assert name not in vars(backbone.encoder)  # its own methods are back
