"""Updates of low rank on toy tensors: names, sums, what does not fit, and what is kept of a change."""

import pytest
import torch

from patsim_utils.errors import InputError
from patsim_utils.method.weights import adapters


def toy_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"w": (3, 4), "w.down": (2, 4), "w.up": (3, 2), "bias": (3,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_an_update_is_added_to_its_weight_and_the_rest_stays() -> None:
    state = toy_state()
    merged = adapters.merge(state, scaling=3.0, source="a file")
    assert merged.keys() == {"w", "bias"}
    torch.testing.assert_close(merged["w"], state["w"] + 3 * state["w.up"] @ state["w.down"])
    assert merged["bias"] is state["bias"]


@pytest.mark.parametrize("missing", ["w", "w.down", "w.up"])
def test_a_weight_or_update_that_is_missing_is_named(missing: str) -> None:
    state = {name: value for name, value in toy_state().items() if name != missing}
    with pytest.raises(InputError, match="^a file: weight 'w' is missing, or a part of its update$"):
        adapters.merge(state, scaling=1.0, source="a file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("w", torch.ones(3, 4).half()),
        ("w.up", torch.ones(3, 2).half()),
        ("w.down", torch.ones(2, 4).half()),
        ("w", torch.ones(4)),
        ("w.up", torch.ones(3, 2, 1)),
        ("w.down", torch.ones(4)),
        ("w.up", torch.ones(3, 1)),
        ("w.up", torch.ones(1, 2)),
        ("w.down", torch.ones(2, 1)),
    ],
)
def test_an_update_that_does_not_fit_is_refused(name: str, value: torch.Tensor) -> None:
    with pytest.raises(InputError, match="^a file: the update of weight 'w' does not fit it$"):
        adapters.merge(toy_state() | {name: value}, scaling=1.0, source="a file")


def test_names_of_peft_become_plain_ones() -> None:
    wrapper = "backbone.base_model.model."
    names = {
        f"{wrapper}layer.query.base_layer.weight": "backbone.layer.query.weight",
        f"{wrapper}layer.query.base_layer.bias": "backbone.layer.query.bias",
        f"{wrapper}layer.query.lora_A.default.weight": "backbone.layer.query.weight.down",
        f"{wrapper}layer.query.lora_B.default.weight": "backbone.layer.query.weight.up",
        f"{wrapper}layer.norm.weight": "backbone.layer.norm.weight",
        "head.first": "head.first",
        f"head.{wrapper}": f"head.{wrapper}",
    }
    state = {name: torch.tensor(number) for number, name in enumerate(names)}
    plain = adapters.plain_names(state)
    assert list(plain) == list(names.values())
    assert [value.item() for value in plain.values()] == list(range(len(names)))


def test_a_change_is_kept_as_it_is_or_as_two_factors_where_these_are_smaller() -> None:
    before = torch.zeros(6, 4)
    value = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert adapters._difference("w", before, before, 1) == {}
    assert adapters._difference("w", value[0], before[0], 1) == {"w": pytest.approx(value[0])}
    assert list(adapters._difference("w", value, before, 3)) == ["w"]  # 3 * (6 + 4) numbers, of 24
    assert list(adapters._difference("w", torch.ones(5, 20), torch.zeros(5, 20), 4)) == ["w"]  # 100 of 100
    factors = adapters._difference("w", value, before + 1, 2)
    left, size, right = torch.linalg.svd(value - 1, full_matrices=False)
    best = left[:, :2] @ torch.diag(size[:2]) @ right[:2]
    torch.testing.assert_close(factors["w.up"] @ factors["w.down"], best)
    torch.testing.assert_close(factors["w.up"].norm(dim=0), factors["w.down"].norm(dim=1))  # neither is small


def test_what_was_kept_is_added_to_the_pretrained_encoder() -> None:
    pretrained = torch.nn.Linear(4, 3)
    state = toy_state()
    kept = {
        "backbone.weight.down": state["w.down"].half(),
        "backbone.weight.up": state["w.up"].half(),
        "head.first": torch.ones(1).half(),
    }
    restored = adapters.restore(kept, pretrained, source="a file")
    assert restored.keys() == {"backbone.weight", "backbone.bias", "head.first"}
    assert {value.dtype for value in restored.values()} == {torch.float32}
    update = kept["backbone.weight.up"].float() @ kept["backbone.weight.down"].float()
    torch.testing.assert_close(restored["backbone.weight"], pretrained.weight.data + update)
    torch.testing.assert_close(restored["backbone.bias"], pretrained.bias.data)
