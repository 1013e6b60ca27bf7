"""What cannot be packed exactly is refused; that the rest is exact stands in test_matcher."""

from types import SimpleNamespace

import pytest
import torch

from patsim_utils.errors import InputError
from patsim_utils.layouts import positions
from patsim_utils.method import encoder


def test_the_mask_follows_its_rule() -> None:
    block = torch.tensor([[0, 0, 1, 1, 2, -1]])
    mask = positions.visible(block)[0, 0]
    for q, own in enumerate(block[0].tolist()):
        for k, other in enumerate(block[0].tolist()):
            assert mask[q, k].item() == ((own >= 0 and other == 0) or own == other)
    assert mask.any(-1).all()


@pytest.mark.parametrize("config", [{"model_type": "nomic_bert"}, {"model_type": "deberta-v2", "conv_kernel_size": 3}])
def test_an_encoder_that_cannot_keep_targets_apart_is_refused(config: dict) -> None:
    backbone = SimpleNamespace(config=SimpleNamespace(**config))
    with pytest.raises(InputError, match="use layout 'pair'"):
        positions.check(backbone, "packed")
    positions.check(backbone, "pair")


@pytest.mark.parametrize("kind", ["mpnet", "deberta-v2"])
def test_a_version_of_transformers_without_the_replaced_method_is_refused(tiny_backbone, monkeypatch, kind) -> None:
    backbone = encoder.load_backbone(tiny_backbone(kind))
    positions.check(backbone, "packed")
    monkeypatch.delattr(type(backbone.encoder), positions.RELATIVE[kind][0])
    with pytest.raises(InputError, match="of this version of transformers"):
        positions.check(backbone, "packed")


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_absolute_positions_start_where_the_encoder_s_own_do(tiny_backbone, kind: str) -> None:
    backbone, tokens = encoder.load_backbone(tiny_backbone(kind)).eval(), torch.randn(2, 40, 32)
    batch = {"position_ids": torch.arange(40).expand(2, -1), "block": torch.zeros(2, 40, dtype=torch.long)}
    with torch.inference_mode():
        own = backbone(inputs_embeds=tokens, output_hidden_states=True).hidden_states
        ours = encoder.hidden_states(backbone, tokens, batch)
    torch.testing.assert_close(ours[-1], own[-1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "deberta-v2", "modernbert"])
def test_positions_in_their_natural_order_give_the_encoder_s_own_states(tiny_backbone, kind: str) -> None:
    backbone, tokens = encoder.load_backbone(tiny_backbone(kind)).eval(), torch.randn(2, 40, 32)
    natural = {"position_ids": torch.arange(40).expand(2, -1)}
    with torch.inference_mode():
        own, ours = (
            encoder.hidden_states(backbone, tokens, natural | {"block": torch.full((2, 40), block)}) for block in (0, 1)
        )
    for one, other in zip(own, ours, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
