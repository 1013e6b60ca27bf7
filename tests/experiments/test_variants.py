"""Variants are read strictly from their file."""

from pathlib import Path

import pytest

from patsim_utils.config import Config
from patsim_utils.errors import InputError
from patsim_utils.experiments import variants
from patsim_utils.experiments.variants import read_variants


def test_the_committed_variants_change_what_they_say() -> None:
    described = Config(adapter="lora_all", rating_weight=0, learning_rate=8e-4, head_learning_rate=1e-4)
    committed = {variant.name: variant for variant in read_variants("ablation", described)}
    assert committed["described"].config == described
    assert committed["full"].config == described.model_copy(update={"adapter": "full", "learning_rate": 1e-4})
    assert committed["vector-and-title"].runs(Path("x")) == committed["described"].runs(Path("x"))  # not run twice
    assert list(committed["random-rows"].runs(Path("x"))) == [42]
    changed = set()
    for variant in committed.values():
        changed |= {field for field, value in variant.config if getattr(described, field) != value}
    assert {"loss", "contrast_weight", "context_text", "fusion", "adapter", "features", "layout"} < changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {idea: x, change: {losss: mse}}", "variant 'a': there is no parameter 'losss'; did you mean loss"),
        ("a: {idea: x, change: {epochs: many}}", "variant 'a': parameter epochs: 'many'"),
        ("a: {idea: x, change: {loss: huber}}", "variant 'a': parameter loss: 'huber'"),
        ("a: {idea: x, change: 3}", "variant 'a': is no mapping"),
        ("a: {idea: x, against: b}\nb: {idea: x}", "variant 'a': against is 'b'"),
        ("a: {idea: x, idee: x, 3: y}", "variant 'a': 'idee' is none of idea, against"),
        ("a: {idea: x, config: {loss: mse}}", "variant 'a': 'config' is none of"),
        ("a: {idea: x}\nb: {idea: x}\na: {idea: y}", "is no mapping of variants \\(a stands twice"),
        ("a: {idea: x, seeds: 0}", "variant 'a': seeds: .*greater"),
        ("a: {}", "variant 'a': idea: Field required"),
        ("../a: {idea: x}", "variant '../a': name: "),
        ("3: {idea: x}", "variant 3: name: "),
        ("- a", "is no mapping of variants"),
        ("a: {idea: [x}", "is no mapping of variants"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, monkeypatch, text: str, message: str) -> None:
    monkeypatch.setattr(variants, "VARIANTS", tmp_path)
    (tmp_path / "few.yaml").write_text(text)
    with pytest.raises(InputError, match=f"^few.yaml: .*{message}") as error:
        read_variants("few", Config())
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_is_one_line() -> None:
    with pytest.raises(InputError, match="'ladder' is none of ablation"):
        read_variants("ladder", Config())
