"""The recipe: two learning rates, weight decay of weights alone, one process that writes, a note of the progress."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.layouts.sampler import LengthGrouped
from patsim_utils.method.matcher import Matcher
from patsim_utils.training import trainer
from patsim_utils.training.objective import objective
from patsim_utils.training.trainer import WEIGHT_DECAY, DualLossTrainer, Progress


@pytest.fixture(scope="module")
def tiny(tiny_backbone, tmp_path_factory) -> DualLossTrainer:
    """A trainer of all weights of a tiny network."""
    rates = {"learning_rate": 1e-3, "head_learning_rate": 1e-2}
    config = Config(backbone=tiny_backbone("bert"), contrast_layer=1, adapter="full", **rates)
    matcher = Matcher(config)
    frame = load("sample")["train"].head(16)
    sampler = LengthGrouped(matcher.pairs(frame), batch_size=8, seed=0)
    work = tmp_path_factory.mktemp("work")
    arguments = TrainingArguments(output_dir=str(work), use_cpu=True, report_to=[])
    return DualLossTrainer(matcher, sampler=sampler, validation=frame, work=work, args=arguments)


def test_encoder_and_heads_have_learning_rates_of_their_own(tiny: DualLossTrainer) -> None:
    names = {id(parameter): name for name, parameter in tiny.model.named_parameters()}
    rates: dict[float, set[str]] = {}
    for group in tiny.create_optimizer().param_groups:
        parts = {names.pop(id(parameter)).partition(".")[0] for parameter in group["params"]}
        rates.setdefault(group["lr"], set()).update(parts)
    assert rates == {1e-3: {"backbone"}, 1e-2: {"fusion", "head", "rating_head"}}
    assert not names  # each parameter is in one group


def test_weights_decay_and_biases_and_norms_do_not(tiny: DualLossTrainer) -> None:
    names = {id(parameter): name for name, parameter in tiny.model.named_parameters()}
    decay = {}
    for group in tiny.create_optimizer().param_groups:
        decay |= {names[id(parameter)]: group["weight_decay"] for parameter in group["params"]}
    kept = {name for name in decay if name.endswith(".bias") or "LayerNorm" in name}
    matrices = {name for name, parameter in tiny.model.named_parameters() if parameter.ndim == 2}
    assert len(kept) > 10
    assert len(matrices) > 10
    assert {decay[name] for name in kept} == {0.0}
    assert {decay[name] for name in matrices} == {WEIGHT_DECAY}
    assert WEIGHT_DECAY > 0


@pytest.mark.parametrize("is_main", [True, False])
def test_the_main_process_alone_writes_weights(
    tiny: DualLossTrainer, tmp_path: Path, monkeypatch, is_main: bool
) -> None:
    monkeypatch.setattr(TrainingArguments, "should_save", is_main)
    tiny._save(str(tmp_path / "checkpoint-1"))
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["model.safetensors"] * is_main


def test_progress_is_noted_at_the_first_step_and_then_every_few_seconds(tmp_path: Path, monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr(trainer.time, "monotonic", lambda: now)
    progress = Progress(tmp_path / "progress.json", seconds=lambda: now - 90)

    def note_at(step: int, *, is_main: bool = True) -> dict:
        state = SimpleNamespace(global_step=step, max_steps=40, is_world_process_zero=is_main)
        progress.on_step_end(None, state, None)
        return json.loads(progress.path.read_text())

    first = {"step": 1, "steps": 40, "seconds": 10.0}
    assert note_at(1) == first
    now = 104.9
    assert note_at(2) == first
    now = 105.0
    assert note_at(3, is_main=False) == first
    assert note_at(4) == {"step": 4, "steps": 40, "seconds": 15.0}
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_term_or_gradient_that_is_not_finite_names_step_and_rows(tiny: DualLossTrainer) -> None:
    tiny.terms = {"ordinal": 1.0, "contrast": float("inf")}
    tiny.state.global_step = 6
    with pytest.raises(FloatingPointError) as error:
        tiny._refuse_not_finite(torch.tensor([3, 11]))
    reason = "step 7: the contrast loss is inf; rows of the training split in this batch: 3, 11"
    assert str(error.value) == reason
    tiny.terms = {"ordinal": 1.0}
    tiny._refuse_not_finite(torch.tensor([3, 11]))
    with pytest.raises(FloatingPointError, match="^step 6: the gradient's norm is nan$"):
        tiny.log({"loss": 1.0, "grad_norm": float("nan")})
    tiny.state.global_step = 0


def test_the_loss_is_the_sum_of_its_terms_which_are_logged(tiny: DualLossTrainer, monkeypatch) -> None:
    pairs = tiny.sampler.pairs
    batch = pairs.collate([pairs[np.array([row])] for row in range(8)])
    tiny.model.eval()
    loss = tiny.compute_loss(tiny.model, batch)
    assert list(tiny.terms) == ["ordinal", "contrast", "rating"]
    assert loss.item() == pytest.approx(sum(tiny.terms.values()), rel=1e-5)
    config = tiny.matcher.config
    terms = objective(tiny.model(batch), batch, config)
    assert tiny.terms == pytest.approx({name: term.item() for name, term in terms.items()}, rel=1e-4)
    monkeypatch.setattr(tiny, "clock", trainer.time.perf_counter() - 5)
    tiny.log({"loss": 1.5, "grad_norm": 2.0})
    tiny.log({"eval_loss": 0.5})
    first, second = tiny.state.log_history[-2:]
    assert first["loss"] == 1.5
    assert {name: first[name] for name in tiny.terms} == tiny.terms
    assert 5 <= first["seconds"] < 60
    assert "ordinal" not in second
    assert second["seconds"] >= 5


def test_of_several_devices_each_has_the_value_of_the_loss_and_its_own_share_of_the_gradient(
    tiny: DualLossTrainer, monkeypatch
) -> None:
    pairs = tiny.sampler.pairs
    batch = pairs.collate([pairs[np.array([row])] for row in range(8)])
    tiny.model.eval()
    name, parameter = next((n, p) for n, p in tiny.model.named_parameters() if n.startswith("head."))
    alone = tiny.compute_loss(tiny.model, batch)
    (gradient,) = torch.autograd.grad(alone, parameter)
    accelerator = SimpleNamespace(num_processes=3)
    monkeypatch.setattr(tiny, "accelerator", accelerator)

    def joined(outputs: object, inputs: dict, given: object) -> tuple:
        assert given is accelerator
        return outputs, inputs

    monkeypatch.setattr(trainer.devices, "joined", joined)
    shared = tiny.compute_loss(tiny.model, batch)
    assert shared.item() == pytest.approx(alone.item(), rel=1e-6)
    (of_three,) = torch.autograd.grad(shared, parameter)
    torch.testing.assert_close(of_three, 3 * gradient, msg=name)


def test_an_evaluation_is_logged_told_and_printed_by_the_main_process(
    tiny: DualLossTrainer, monkeypatch, capsys
) -> None:
    figures = {"loss": 0.5, "pearson": 0.25, "spearman": 0.125}
    told = []

    def on_evaluate(arguments: object, state: object, control: object, metrics: dict) -> object:
        told.append((arguments, state, metrics))
        return control

    monkeypatch.setattr(tiny, "_validate", lambda: figures)
    monkeypatch.setattr(tiny.callback_handler, "on_evaluate", on_evaluate)
    monkeypatch.setattr(tiny.args, "disable_tqdm", True)
    monkeypatch.setattr(tiny.state, "epoch", 1.9999)
    logs = tiny.evaluate()
    assert logs == {"eval_loss": 0.5, "eval_pearson": 0.25, "eval_spearman": 0.125}
    assert told == [(tiny.args, tiny.state, logs)]
    assert 0 <= tiny.state.log_history[-1]["eval_runtime"] < 60
    assert "epoch 2: validation loss 0.5000, pearson 0.2500, spearman 0.1250\n" in capsys.readouterr().out
    monkeypatch.setattr(tiny.args, "disable_tqdm", False)  # a notebook shows a table of its own
    tiny.evaluate()
    assert "validation" not in capsys.readouterr().out
    monkeypatch.setattr(tiny.args, "disable_tqdm", True)
    monkeypatch.setattr(tiny, "accelerator", SimpleNamespace(is_main_process=False))
    monkeypatch.setattr(trainer.devices, "shared", lambda value: figures if value is None else pytest.fail("evaluated"))
    assert tiny.evaluate() == logs
    assert "validation" not in capsys.readouterr().out
