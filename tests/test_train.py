"""Training: the run folder, the two losses, resuming, and stopping at what is not finite."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import set_seed

from patsim_utils import cpc, encoder, losses, stack, study, train
from patsim_utils.data import grouped_folds, load
from patsim_utils.errors import InputError
from patsim_utils.matcher import Matcher
from patsim_utils.train import Settings


@pytest.fixture(scope="module")
def splits() -> dict[str, pd.DataFrame]:
    """A sixth of the sample's training pairs and all of its other splits."""
    sample = load("sample")
    anchors = sample["train"]["anchor"].drop_duplicates()[::6]
    return {
        **sample,
        "train": sample["train"][sample["train"]["anchor"].isin(anchors)].reset_index(drop=True),
    }


def small(tiny_backbone, **options: object) -> Settings:
    return Settings(
        **{"backbone": tiny_backbone("bert"), "contrast_layer": 1, "epochs": 2, "batch_size": 16, **options}
    )


def test_a_run_leaves_what_the_contract_says(tiny_backbone, splits, tmp_path) -> None:
    settings = small(tiny_backbone)
    result = train.train(splits, settings, run=tmp_path / "run")
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {
        "config.json",
        "metrics.json",
        "history.csv",
        "predictions.csv",
        "model",
    }
    assert json.loads((run / "metrics.json").read_text()) == json.loads(json.dumps(result))
    assert Settings(**json.loads((run / "config.json").read_text())) == settings
    for split in ("validation", "test"):
        found = result[split]
        assert set(found) == {"n", "pearson", "pearson_ci", "spearman", "mae", "qwk", "loss"}
        assert found["pearson_ci"][0] <= found["pearson"] <= found["pearson_ci"][1]
    steps = 2 * -(-len(splits["train"]) // 16)
    assert result["train"]["steps"] == steps
    assert [one["epoch"] for one in result["epochs"]] == [1, 2]
    assert 0 < result["train"]["evaluation_seconds"] < result["train"]["seconds"]
    assert max(one["pearson"] for one in result["epochs"]) == pytest.approx(
        result["validation"]["pearson"],
        abs=1e-5,  # LoRA merged and not differ by float32's rounding
    )

    history = pd.read_csv(run / "history.csv")
    assert history["step"].tolist() == list(range(1, steps + 1))
    assert np.isfinite(history.to_numpy()).all()
    np.testing.assert_allclose(history["loss"], history["ordinal"] + 0.4 * history["contrast"], rtol=1e-4, atol=1e-6)
    assert history["learning_rate"].iloc[-1] < history["learning_rate"].max() / 10  # the cosine came down

    predictions = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    matcher = Matcher.load(run)
    for split, rows in predictions.groupby("split"):
        np.testing.assert_allclose(matcher.score(rows), rows["prediction"], atol=1e-6)
        assert len(rows) == len(splits[split])


def test_a_curriculum_takes_as_many_steps(tiny_backbone, splits, tmp_path) -> None:
    settings = small(tiny_backbone, curriculum="easy_first")
    result = train.train(splits, settings, run=tmp_path / "run", resumable=False)
    assert result["train"]["steps"] == 2 * -(-len(splits["train"]) // 16)
    with pytest.raises(InputError, match="curriculum: 'steep' is none of none, easy_first"):
        small(tiny_backbone, curriculum="steep")


def test_ratings_are_learned_beside_the_score(tiny_backbone, splits, tmp_path) -> None:
    settings = small(tiny_backbone, rating_weight=0.5, contrast="none", learning_rate=1e-2, adapter="full")
    result = train.train(splits, settings, run=tmp_path / "run")
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    np.testing.assert_allclose(history["loss"], history["ordinal"] + 0.5 * history["rating"], rtol=1e-4)
    assert history["rating"].iloc[0] == pytest.approx(np.log(10), abs=0.2)  # ten ratings, nothing known yet
    assert history["rating"].tail(10).mean() < history["rating"].iloc[0] - 0.1
    ratings = Matcher.load(tmp_path / "run").ratings(splits["train"])
    assert (ratings.sum(axis=1) - 1).abs().max() < 1e-6
    assert np.isfinite(result["validation"]["loss"])
    unrated = {name: frame.drop(columns="rating") for name, frame in splits.items()}
    with pytest.raises(InputError, match="no column rating"):
        train.train(unrated, settings, run=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("rating_weight", [0.0, 1.0])
def test_the_evidence_is_fitted_before_the_encoder(tiny_backbone, splits, tmp_path, rating_weight) -> None:
    settings = small(tiny_backbone, evidence="all", contrast="none", rating_weight=rating_weight)
    settings = replace(settings, learning_rate=1e-6, head_learning_rate=1e-6)
    result = train.train(splits, settings, run=tmp_path / "run")
    matcher = Matcher.load(tmp_path / "run")
    assert result["baselines"]["evidence"]["validation"]["pearson"] > 0.3  # more than the untouched tiny encoder knows
    train.set_seed(settings.seed)
    again = Matcher(settings.architecture())
    train.fit_evidence(again.evidence, again.pairs(splits["train"]), settings, folder=tmp_path / "other")
    for name, weight in again.evidence.state_dict().items():
        torch.testing.assert_close(weight, matcher.evidence.state_dict()[name], msg=name)  # training left it alone
    assert not any((tmp_path / "other").iterdir())
    numbers = matcher.pairs(splits["train"]).evidence
    torch.testing.assert_close(matcher.evidence.mean, numbers.mean(0), atol=1e-5, rtol=1e-5)
    predictions = pd.read_csv(tmp_path / "run" / "predictions.csv", keep_default_na=False)
    np.testing.assert_allclose(matcher.score(predictions), predictions["prediction"], atol=1e-6)
    assert result["validation"]["pearson"] > 0.3  # that of the evidence: the rest has hardly been trained


def test_it_can_learn_a_handful_of_pairs_by_heart(pairs_frame, tmp_path) -> None:
    settings = Settings(epochs=40, batch_size=12, learning_rate=5e-3, head_learning_rate=5e-3, contrast="none")
    result = train.train({"train": pairs_frame, "validation": pairs_frame}, settings, run=tmp_path / "run")
    assert result["validation"]["pearson"] > 0.95


def test_layer_decay_holds_the_lower_layers_back(tiny_backbone, splits, tmp_path) -> None:
    settings = small(tiny_backbone, adapter="full", contrast="none", epochs=1, layer_decay=1e-3, weight_decay=0.0)
    train.train(splits, settings, run=tmp_path / "run", resumable=False)
    before = encoder.load_backbone(settings.backbone).state_dict()
    after = Matcher.load(tmp_path / "run").backbone.state_dict()
    moved: dict[int, float] = {}
    for name, weight in before.items():
        layer = encoder.layer_of(name)
        moved[layer] = max(moved.get(layer, 0.0), (after[name] - weight).abs().max().item())
    assert list(moved) == [0, 1, 2, 3]
    assert moved[3] > 1e-3  # the last layer has the full rate
    for layer in (0, 1, 2):
        assert moved[layer] < 0.05 * moved[layer + 1]


def test_layers_of_a_parameter_by_name() -> None:
    names = {
        "embeddings.word_embeddings.weight": 0,
        "backbone.base_model.model.encoder.layer.11.attention.self.query.lora_A.default.weight": 12,
        "backbone.layers.0.attn.Wqkv.weight": 1,
        "encoder.rel_embeddings.weight": 0,
    }
    assert {name: encoder.layer_of(name) for name in names} == names


@pytest.mark.parametrize("loss", losses.ORDINAL)
def test_every_loss_trains(tiny_backbone, splits, tmp_path, loss: str) -> None:
    settings = small(tiny_backbone, loss=loss, epochs=1, contrast="cosent" if loss == "bce" else "none")
    result = train.train({"train": splits["validation"], "validation": splits["test"]}, settings, run=tmp_path / "run")
    assert np.isfinite(result["validation"]["loss"])


@pytest.mark.parametrize("layout", ["packed", "list"])
def test_every_layout_trains(tiny_backbone, splits, tmp_path, layout: str) -> None:
    result = train.train(splits, small(tiny_backbone, layout=layout, epochs=1), run=tmp_path / "run")
    assert result["train"]["steps"] == -(-len(splits["train"]) // 16)


def test_the_same_seed_gives_the_same_run(tiny_backbone, splits, tmp_path) -> None:
    first, second, third = (
        train.train(splits, small(tiny_backbone, epochs=1, seed=seed), run=tmp_path / name)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first["validation"]["pearson"] == pytest.approx(second["validation"]["pearson"], abs=1e-6)
    assert first["validation"]["pearson"] != pytest.approx(third["validation"]["pearson"], abs=1e-6)


KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from transformers import TrainerCallback
    from patsim_utils import train
    from patsim_utils.data import grouped_folds, load

    class Kill(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            late = state.global_step > state.max_steps * 0.6  # in the middle of the second epoch
            if late and Path(args.output_dir) == Path(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)

    class Killed(train.DualLossTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback(Kill())

    train.DualLossTrainer = Killed
    sample = load("sample")
    splits = {"train": sample["validation"], "validation": sample["test"]}
    train.train(splits, train.Settings(**json.loads(sys.argv[1])), run=Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def whole(tiny_backbone, splits, tmp_path_factory) -> tuple[dict, dict[str, pd.DataFrame], dict, pd.DataFrame]:
    """Options with all that is fitted before the encoder, data, and the result and history of a run in one go."""
    options = {
        "evidence": "all",
        "stack": 2,
        "backbone": tiny_backbone("bert"),
        "contrast_layer": 1,
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
    }
    data = {"train": splits["validation"], "validation": splits["test"]}
    run = tmp_path_factory.mktemp("whole")
    return options, data, train.train(data, Settings(**options), run=run), pd.read_csv(run / "history.csv")


@pytest.mark.parametrize("killed", ["checkpoints", "checkpoints/judge-1/checkpoints"])
def test_a_killed_run_goes_on_where_it_was(whole, tmp_path, monkeypatch, killed: str) -> None:
    options, data, expected, one = whole
    arguments = json.dumps(options), str(tmp_path / "killed"), str(tmp_path / "killed" / killed)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), *arguments]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "killed" / "metrics.json").exists()
    assert list((tmp_path / "killed" / killed).glob("checkpoint-*"))

    monkeypatch.delattr(stack, "ReaderTrainer")  # what was ready is not made again
    if killed == "checkpoints":  # which hold all that was fitted
        monkeypatch.delattr(train, "fit_evidence")
        monkeypatch.delattr(train, "fit_judges")
    resumed = train.train(data, Settings(**options), run=tmp_path / "killed")
    for name in ("pearson", "spearman", "loss"):
        assert resumed["validation"][name] == pytest.approx(expected["validation"][name], abs=1e-4)
    model = Matcher.load(tmp_path / "killed")
    fitted = [*model.evidence.parameters(), *model.judges.parameters()]  # before the encoder
    counted = sum(weight.numel() for weight in [*fitted, *(w for w in model.parameters() if w.requires_grad)])
    assert resumed["train"]["trainable_parameters"] == counted
    two = pd.read_csv(tmp_path / "killed" / "history.csv")
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-3)
    assert (two["seconds"].diff().dropna() > 0).all()


def test_the_source_program_runs_with_every_loss_finite(tiny_backbone, splits, tmp_path) -> None:
    """The class at the pooled output, the source's loss, and a contrastive term on the class vectors alone."""
    options = {"fusion": "pooled", "context_text": "none", "loss": "as_run", "contrast": "classes", "pooling": "cls"}
    train.train(splits, small(tiny_backbone, epochs=1, **options), run=tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    assert np.isfinite(history.to_numpy()).all()
    assert (history["contrast"] > 0).any()


def test_other_settings_do_not_take_over_a_checkpoint(tiny_backbone, splits, tmp_path) -> None:
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "config.json").write_text("{}")
    result = train.train(splits, small(tiny_backbone, epochs=1), run=tmp_path)
    assert result["epochs"][0]["epoch"] == 1
    assert not (tmp_path / "checkpoints").exists()


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(
    tiny_backbone, splits, tmp_path, monkeypatch
) -> None:
    real, calls = losses.ordinal_loss, []

    def broken(cumulative: torch.Tensor, rank: torch.Tensor, **kwargs: object) -> torch.Tensor:
        calls.append(1)
        return real(cumulative, rank, **kwargs) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(losses, "ordinal_loss", broken)
    with pytest.raises(FloatingPointError, match=r"step 3: the ordinal loss is nan; rows .*: \d+, \d+"):
        train.train(splits, small(tiny_backbone), run=tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "k2"}, "loss: 'k2' is none of smooth_k2"),
        ({"contrast": "simclr"}, "contrast: 'simclr' is none of ntxent"),
        ({"epochs": 0}, "epochs: 0 is not greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate: nan"),
        ({"warmup": 1.5}, "warmup: 1.5 is not a share"),
        ({"layer_decay": 0.0}, "layer_decay: 0.0 is not in"),
        ({"layers": -1}, "layers: -1 is less than 0"),
        ({"contrast_weight": -1.0}, "contrast_weight: -1.0 is less than 0"),
        ({"loss": "pearson", "batch_size": 1}, "at least 2"),
        ({"contrast": "classes", "fusion": "none"}, "needs class vectors"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**options)


def test_pick_takes_its_own_names_only() -> None:
    assert Settings.pick({"epochs": 7, "name": "x", "show_pairs": True}) == Settings(epochs=7)


def test_official_titles_are_kept_with_the_model(tiny_backbone, splits, tmp_path, cpc_zip: Path) -> None:
    settings = small(tiny_backbone, epochs=1, cpc_titles=str(cpc_zip))
    train.train(splits, settings, run=tmp_path / "run")
    assert Matcher.load(tmp_path / "run").titles == cpc.titles(cpc_zip)


def test_a_judge_never_sees_the_anchors_that_it_judges(tiny_backbone, splits, tmp_path, monkeypatch) -> None:
    settings = small(tiny_backbone, evidence="all", stack=2, rating_weight=1.0, learning_rate=0.01)
    few = {name: split.groupby("score").head(24).reset_index(drop=True) for name, split in splits.items()}
    unseen = grouped_folds(few["train"], folds=2, seed=0)

    def fit(frame: pd.DataFrame, folder: str) -> Matcher:
        set_seed(0)
        model = Matcher(settings.architecture())
        data = few | {"train": frame}
        train.fit_judges(model.judges, data, settings, unseen=unseen, folder=tmp_path / folder, resumable=False)
        return model.eval()

    first = fit(few["train"], "a")
    score = few["train"]["score"].where(unseen == 1, 1 - few["train"]["score"])
    other = fit(few["train"].assign(score=score), "b")
    judged = [[judge.score(few["test"]) for judge in model.judges] for model in (first, other)]
    np.testing.assert_array_equal(judged[0][0], judged[1][0])  # it has never seen the rows that are other ones now
    assert np.abs(judged[0][1] - judged[1][1]).max() > 1e-3

    # what they say becomes evidence: of training rows by the one that has not seen them, of others on the mean
    frame, pairs = few["train"], first.tokenised(few["train"])
    opinions = [
        judge._outputs(judge.pairs(frame), lambda o: torch.cat([o.cumulative.sigmoid(), o.ratings.softmax(-1)], dim=1))
        for judge in first.judges
    ]
    trained = first.evidence_of(pairs, frame, unseen=unseen)[:, -14:]
    expected = torch.where(torch.from_numpy(unseen)[:, None] == 0, *opinions)
    torch.testing.assert_close(trained, expected, atol=1e-5, rtol=0)
    fresh = first.pairs(frame).evidence[:, -14:]
    torch.testing.assert_close(fresh, (opinions[0] + opinions[1]) / 2, atol=1e-5, rtol=0)

    # a run that has ended is taken as it is
    monkeypatch.setattr(train, "train", None)
    again = fit(few["train"], "a")
    np.testing.assert_array_equal(again.judges[1].score(few["test"]), judged[0][1])


def test_a_judge_trains_as_the_preset_search_does() -> None:
    company, search = (
        Settings.pick(study.parameters(name, data="sample", name="any", given=[])) for name in ("company", "search")
    )
    assert company.judge() == replace(search, keep="last", contrast_layer=0)


def test_a_stack_of_more_parts_than_anchors_is_refused(tiny_backbone, splits, tmp_path) -> None:
    settings = small(tiny_backbone, evidence="all", stack=500)
    few = splits | {"train": splits["validation"].head(40)}
    with pytest.raises(InputError, match="parameter stack: 500 parts"):
        train.train(few, settings, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
