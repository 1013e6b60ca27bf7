"""What must not change: logits of tiny models, and one step's loss, as the code had them before it was rebuilt.

`tests/golden/<case>.safetensors` holds the trained weights of a random model (all layouts have those of `layout-pair`)
and what it said about `pairs.csv`.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from patsim_utils.config import Config
from patsim_utils.method.losses import dual_loss
from patsim_utils.method.matcher import Matcher

GOLDEN = Path(__file__).with_name("golden")
CASES = sorted(path.stem for path in GOLDEN.glob("*.safetensors"))


def build(case: str, **options: object) -> tuple[Matcher, dict[str, torch.Tensor]]:
    kind, _, value = case.partition("-")
    own = {
        "layout": {"layout": value, "adapter": "full", "rating_weight": 1.0},
        "fusion": {"fusion": value},
        "hyperlora": {"adapter": "hyperlora"},
        "context": {"context_text": value},
    }[kind]
    defaults = {"adapter": "lora_all", "rating_weight": 0.0, "contrast_layer": 1, "precision": "fp32"}
    model = Matcher(Config(backbone=str(GOLDEN / "encoder"), **{**defaults, **own, **options}))
    state = load_file(GOLDEN / f"{case}.safetensors")
    weights = load_file(GOLDEN / f"{case if kind != 'layout' else 'layout-pair'}.safetensors")
    weights = {name: value for name, value in weights.items() if not name.startswith("expected.")}
    missing, unexpected = model.network.load_state_dict(weights, strict=False)
    assert not unexpected
    trained = {name for name, parameter in model.network.named_parameters() if parameter.requires_grad}
    assert not trained & set(missing)  # the others are frozen, and so those of encoder/
    model.network.eval()
    return model, state


@pytest.mark.parametrize("case", CASES)
def test_logits_are_what_they_were(case: str) -> None:
    model, state = build(case)
    if model.config.adapter == "lora_all":
        model.network.backbone.merge_adapter()
    frame = pd.read_csv(GOLDEN / "pairs.csv", keep_default_na=False)
    found = model.run(model.pairs(frame)).logits
    torch.testing.assert_close(found, state["expected.cumulative"], atol=1e-5, rtol=1e-5)
    if "expected.ratings" in state:
        np.testing.assert_allclose(model.ratings(frame), state["expected.ratings"], atol=1e-5)


def test_the_loss_of_a_step_and_its_gradient_are_what_they_were() -> None:
    expected = json.loads((GOLDEN / "step.json").read_text())
    model, _ = build("fusion-add", lora_dropout=0.0)
    for module in model.network.train().modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    pairs = model.pairs(pd.read_csv(GOLDEN / "pairs.csv", keep_default_na=False))
    batch = pairs.collate([pairs[np.array([row])] for row in range(len(pairs))])
    terms = dual_loss(model.network(batch), batch, model.config)
    assert terms["ordinal"].item() == pytest.approx(expected["ordinal"], rel=1e-5)
    assert terms["contrast"].item() == pytest.approx(0.4 * expected["contrast"], rel=1e-5)
    sum(terms.values()).backward()
    gradients = {name: parameter.grad for name, parameter in model.network.named_parameters()}
    for name, norm in expected["gradient norms"].items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=1e-4)
