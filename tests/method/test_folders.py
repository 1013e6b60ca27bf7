"""Model folders: both forms, what is compressed, damaged and hostile ones, and the names of models that ship."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from patsim_utils.config import Config
from patsim_utils.errors import InputError
from patsim_utils.method import backbones, encoder
from patsim_utils.method.features import Regressor
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights import adapters, files, folders

SMALL = {"contrast_layer": 1, "precision": "fp32", "rating_weight": 1.0}


def trained(backbone: str, *, size: float = 0.02, **options: object) -> Matcher:
    """A model whose trainable weights differ from those it starts with."""
    torch.manual_seed(0)
    matcher = Matcher(Config(backbone=backbone, **{**SMALL, **options}))
    with torch.no_grad():
        for parameter in matcher.network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * size)
    matcher.network.eval()
    return matcher


@pytest.fixture
def short_name(tiny_backbone, monkeypatch: pytest.MonkeyPatch) -> str:
    """`minilm`, which here is a small encoder."""
    folder = Path(tiny_backbone("bert"))
    monkeypatch.setattr(backbones, "path", lambda name: str(folder) if name == "minilm" else name)
    monkeypatch.setitem(backbones.SHA256, "minilm", backbones.sha256(folder / backbones.WEIGHTS))
    return "minilm"


@pytest.mark.parametrize(("adapter", "layers"), [("lora", 0), ("lora_all", 2)])
def test_a_lora_model_keeps_its_own_factors_and_scores_the_same(
    short_name, pairs_frame, tmp_path, adapter: str, layers: int
) -> None:
    matcher = trained(short_name, adapter=adapter, lora_rank=4, layers=layers)
    matcher.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"matcher.json", "model.safetensors"}
    tensors = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    of_encoder = [name for name in tensors if name.startswith("backbone.")]
    assert all(name.endswith((".down", ".up")) for name in of_encoder)
    loaded = Matcher.load(tmp_path)
    assert not loaded.network.has_lora
    np.testing.assert_allclose(loaded.score(pairs_frame), matcher.score(pairs_frame), atol=1e-6)


def test_a_full_rank_compression_loses_only_what_float16_loses(short_name, pairs_frame, tmp_path) -> None:
    matcher = trained(short_name, adapter="full", size=0.2)
    matcher.save(tmp_path / "adapter", form="adapter", rank=32)
    loaded = Matcher.load(tmp_path / "adapter")
    np.testing.assert_allclose(loaded.score(pairs_frame), matcher.score(pairs_frame), atol=0.01)
    np.testing.assert_array_equal(matcher.compressed(32).score(pairs_frame), loaded.score(pairs_frame))
    assert {x.dtype for x in load_file(tmp_path / "adapter" / "model.safetensors").values()} == {torch.float16}


def test_compression_is_the_best_approximation_of_its_rank(tiny_backbone) -> None:
    matcher = trained(tiny_backbone("bert"), adapter="full")
    pretrained = encoder.load_backbone(tiny_backbone("bert"))
    kept = adapters.compress(matcher.network, pretrained, svd_rank=5, scaling=1.0, dtype=torch.float32)
    name = "backbone.encoder.layer.0.intermediate.dense.weight"
    change = matcher.network.state_dict()[name] - pretrained.state_dict()[name.removeprefix("backbone.")]
    size = torch.linalg.svdvals(change)
    assert kept[f"{name}.down"].shape == (5, 32)
    missed = change - kept[f"{name}.up"] @ kept[f"{name}.down"]
    assert missed.norm().item() == pytest.approx(size[5:].norm().item(), rel=1e-4)
    assert kept["backbone.embeddings.word_embeddings.weight.down"].shape == (5, 32)
    assert "backbone.encoder.layer.0.attention.output.LayerNorm.weight" in kept


def test_an_adapter_needs_the_weights_it_was_trained_on(short_name, pairs_frame, tmp_path, monkeypatch) -> None:
    trained(short_name, adapter="lora").save(tmp_path)
    monkeypatch.setitem(backbones.SHA256, "minilm", "0" * 64)
    message = f"^{tmp_path}: backbone 'minilm' has other weights than the one it was trained on$"
    with pytest.raises(InputError, match=message):
        Matcher.load(tmp_path)


def test_an_adapter_of_mixed_or_damaged_weights_is_refused(short_name, tmp_path) -> None:
    trained(short_name, adapter="lora", lora_rank=4).save(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith(".down"))
    updated = name.removesuffix(".down")
    damages: dict[str, dict[str, torch.Tensor | None]] = {
        "its weights are not all float16, nor all float32": {name: weights[name].half()},
        f"the update of weight '{updated}' does not fit it": {name: weights[name][:-1].clone()},
        f"weight '{updated}' is missing, or a part of its update": {name: None},
        f"weight '{updated}' holds values that are not finite": {name: weights[name] * float("nan")},
        r"weight 'head.first' is missing \(1 such\)": {"head.first": None},
        r"weight 'extra' is unknown \(1 such\)": {"extra": torch.ones(2)},
    }
    for message, damage in damages.items():
        damaged = {key: value for key, value in (weights | damage).items() if value is not None}
        save_file(damaged, path)
        with pytest.raises(InputError, match=f"^{path}: {message}$") as caught:
            Matcher.load(tmp_path)
        assert str(caught.value).isprintable()


def test_a_save_over_an_older_model_is_all_or_nothing(tiny_backbone, pairs_frame, tmp_path, monkeypatch) -> None:
    older = trained(tiny_backbone("bert"), adapter="full")
    older.save(tmp_path)
    for form in ("half", "adapter"):  # there is no such form; hyperlora has none
        with pytest.raises(InputError):
            trained(tiny_backbone("bert"), adapter="hyperlora").save(tmp_path, form=form)
    np.testing.assert_allclose(Matcher.load(tmp_path).score(pairs_frame), older.score(pairs_frame), atol=1e-6)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "save_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        older.save(tmp_path)
    with pytest.raises(InputError, match="there is no model here"):
        Matcher.load(tmp_path)


def test_the_regressor_is_noted_and_older_notes_without_it_are_read(tiny_backbone, tmp_path) -> None:
    matcher = trained(tiny_backbone("bert"), features="similarity")
    matcher.regressor = Regressor("similarity", precision="fp32")
    for folder in (tmp_path / "at once", tmp_path / "later"):
        matcher.save(folder)
        matcher.regressor = None
    folders.add_regressor(tmp_path / "later", Regressor("similarity", precision="fp32"))
    name = "features/network.safetensors"
    for folder in (tmp_path / "at once", tmp_path / "later"):
        note = folders.read_note(folder)
        assert note.form == "full"
        content = json.loads((folder / "matcher.json").read_text())
        assert content["sha256"][name] == backbones.sha256(folder / name)
        del content["sha256"][name]
        (folder / "matcher.json").write_text(json.dumps(content))
        assert folders.read_note(folder) == note
        renote(folder)
        (folder / name).write_bytes(b"cut")
        with pytest.raises(InputError, match="features/ is missing or was changed"):
            folders.read_note(folder)


def test_hyperlora_has_no_adapter_form(tiny_backbone, short_name, pairs_frame, tmp_path) -> None:
    matcher = trained(short_name, adapter="hyperlora")
    matcher.save(tmp_path)
    assert folders.read_note(tmp_path).form == "full"
    np.testing.assert_allclose(Matcher.load(tmp_path).score(pairs_frame), matcher.score(pairs_frame), atol=1e-6)
    message = "^adapter 'hyperlora' has an update for each class; only the form 'full' keeps it$"
    with pytest.raises(InputError, match=message):
        trained(tiny_backbone("bert"), adapter="hyperlora").save(tmp_path, form="adapter")
    with pytest.raises(InputError, match="^form 'half' is none of auto, full, adapter$"):
        trained(tiny_backbone("bert")).save(tmp_path, form="half")


def test_a_folder_of_format_2_loads(tiny_backbone, pairs_frame, tmp_path) -> None:
    matcher = trained(tiny_backbone("bert"), adapter="lora_all")
    matcher.save(tmp_path, form="full")
    names = list(load_file(tmp_path / "model.safetensors"))
    assert any("lora_A.default" in name for name in names)  # as peft names them
    path = tmp_path / "matcher.json"
    note = json.loads(path.read_text())
    del note["form"]
    path.write_text(json.dumps(note | {"format": 2}))
    np.testing.assert_allclose(Matcher.load(tmp_path).score(pairs_frame), matcher.score(pairs_frame), atol=1e-6)
    note["config"]["layout"] = "packed"  # which then had a [SEP] behind each target
    path.write_text(json.dumps(note | {"format": 2}))
    with pytest.raises(InputError, match="whose layout 'packed' was another one"):
        Matcher.load(tmp_path)


def test_bare_words_are_models_that_ship(tiny_backbone, pairs_frame, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(folders, "SHIPPED", tmp_path)
    hint = "is not in this copy of the package; `make study` trains one into runs/sample"
    for name in ((), ("small",), ("large",)):
        with pytest.raises(InputError, match=f"^model '{''.join(name) or 'small'}' {hint}$"):
            Matcher.load(*name)
    matcher = trained(tiny_backbone("bert"))
    matcher.save(tmp_path / "small")
    np.testing.assert_allclose(Matcher.load().score(pairs_frame), matcher.score(pairs_frame), atol=1e-6)


@pytest.fixture(scope="module")
def saved(tiny_backbone, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    trained(tiny_backbone("bert")).save(folder, form="full")
    return folder


@pytest.fixture
def within_a_gigabyte() -> Iterator[None]:
    """While it lasts, this process may take 1 GB more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


GONE = "a setting that is taken out"


def changed(name: str, **settings: object) -> Callable[[Path], None]:
    """A model folder whose file `name` says something else, and whose note has the sha256 of that."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text(
            json.dumps(
                {name: value for name, value in (json.loads(path.read_text()) | settings).items() if value != GONE}
            )
        )
        renote(folder)

    return damage


def replaced(name: str, content: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text(content)
        if name != "matcher.json":
            renote(folder)

    return damage


def renote(folder: Path) -> None:
    path = folder / "matcher.json"
    note = json.loads(path.read_text())
    path.write_text(json.dumps(note | {"sha256": folders._digests(folder)}))


def more_words(folder: Path) -> None:
    path = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"] |= {f"word{number}": 30522 + number for number in range(10)}
    path.write_text(json.dumps(content))
    renote(folder)


NESTED = "[" * 200_000


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            changed("encoder/config.json", num_hidden_layers=10**9),
            "num_hidden_layers' is 1000000000",
        ),
        (
            changed("encoder/config.json", vocab_size=10**10),
            "vocab_size' is 10000000000, which its",
        ),
        (changed("encoder/config.json", num_labels=10**9), "num_labels' is 1000000000"),
        (changed("encoder/config.json", num_hidden_layers=1e9), "num_hidden_layers' is 1000000000"),
        (changed("encoder/config.json", hidden_size=30_000, intermediate_size=30_000), "weight .* is "),
        (changed("encoder/config.json", num_hidden_layers=20), "weight .* is missing"),
        (changed("encoder/config.json", model_type="gpt2"), "weight .* is|no encoder can be loaded"),
        (
            changed("encoder/config.json", model_type="gpt2", num_hidden_layers=GONE, n_layer=60),
            "describes more than .* modules",
        ),
        (changed("encoder/config.json", model_type="t5"), "weight .* is|no encoder can be loaded"),
        (changed("encoder/config.json", model_type="vit"), "weight .* is|no encoder can be loaded"),
        (changed("encoder/config.json", model_type="nothing"), "no encoder can be loaded"),
        (replaced("encoder/config.json", NESTED), "config.json: is damaged"),
        (replaced("matcher.json", NESTED), "matcher.json: is damaged"),
        (changed("tokenizer/tokenizer_config.json", cls_token=None), "it has no cls_token"),
        (changed("tokenizer/tokenizer_config.json", pad_token=None), "it has no pad_token"),
        (replaced("tokenizer/tokenizer.json", NESTED), "no tokenizer can be loaded"),
        (more_words, ": the tokenizer has 30532 tokens, and the encoder only 30522$"),
    ],
)
def test_a_hostile_folder_is_refused_in_one_line_within_a_gigabyte(
    saved: Path, tmp_path, within_a_gigabyte, damage: Callable[[Path], None], message: str
) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        Matcher.load(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers' is 1000000000"),
        ({"model_type": "gpt2", "num_hidden_layers": GONE, "n_layer": 50}, "describes more than .* modules"),
    ],
)
def test_a_hostile_backbone_is_refused_within_a_gigabyte(
    tiny_backbone, tmp_path, within_a_gigabyte, change: dict, message: str
) -> None:
    folder = shutil.copytree(tiny_backbone("bert"), tmp_path / "backbone")
    config = json.loads((folder / "config.json").read_text())
    settings = {name: value for name, value in (config | change).items() if value != GONE}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=message):
        Matcher(Config(backbone=str(folder), **SMALL))


def test_equal_phrases_are_the_same_by_definition(tiny_backbone, pairs_frame: pd.DataFrame) -> None:
    matcher = trained(tiny_backbone("bert"))
    anchors = ["Fuel  Cell", "fuel cell", "fuel cell", "air-bag", "fuel cell"]
    frame = pd.DataFrame({"anchor": anchors, "context": "H01"})
    frame["target"] = ["fuel cell", "\uff26uel cell", "fuelcell", "air bag", "fuel cells"]
    others = matcher.score(frame.tail(1))
    scores = matcher.score(frame)
    assert scores[:4].tolist() == [1.0, 1.0, 1.0, 1.0]
    np.testing.assert_allclose(scores[4:], others, atol=1e-6)
    assert 0 < scores[4] < 1
    table = matcher.explain(frame)
    assert table.loc[0, ["score", "0", "0.25", "0.5", "0.75", "1"]].tolist() == [1, 0, 0, 0, 0, 1]
    assert table.loc[0, ["rating", "probability"]].tolist() == ["4", 1]
    ranked = matcher.rank("Fuel cell", ["battery", "fuel  cell"], context="H01")
    assert ranked.loc[0, ["target", "score"]].tolist() == ["fuel  cell", 1]
    assert (matcher.predictions(frame.assign(anchor="fuel cell", target="fuel cell")).scores < 1).all()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("fuel cell", "battery", "H01"), "'fuel cell' is a text; needed is a list of"),
        ([("fuel cell", "battery")], "no triple; an anchor, a target and a CPC class are needed"),
        ([("fuel cell", "battery", "H01"), 3], "3 is no triple"),
        (pd.DataFrame({"anchor": ["fuel cell"]}), "`score` takes one"),
    ],
)
def test_predict_says_what_it_needs(tiny_backbone, pairs: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Matcher(Config(backbone=tiny_backbone("bert"), **SMALL)).predict(pairs)


def test_the_package_gives_four_names_on_first_use() -> None:
    import patsim_utils
    from patsim_utils.data import splits
    from patsim_utils.training.fit import fit

    assert patsim_utils.Matcher is Matcher
    assert patsim_utils.Config is Config
    assert patsim_utils.load is splits.load
    assert patsim_utils.fit is fit
    assert {"Matcher", "Config", "load", "fit"} <= {*dir(patsim_utils)}
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        patsim_utils.other  # noqa: B018


def test_a_model_on_a_backbone_of_ones_own_is_another_when_its_words_change(tiny_backbone, tmp_path: Path) -> None:
    backbone = shutil.copytree(tiny_backbone("bert"), tmp_path / "backbone")
    Matcher(Config(backbone=str(backbone), **SMALL)).save(tmp_path / "model", form="adapter")
    before = backbones.identity(tmp_path / "model")
    path = backbone / "tokenizer.json"
    path.write_text(path.read_text().replace("steel", "stele"))
    assert backbones.identity(tmp_path / "model") != before
