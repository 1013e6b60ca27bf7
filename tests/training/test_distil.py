"""Distillation: what is mined, what a teacher says of it, and what a student learns from it."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from patsim_utils.config import Config
from patsim_utils.data.splits import load
from patsim_utils.errors import InputError
from patsim_utils.method.losses import dual_loss
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.model import Outputs
from patsim_utils.ratings import ABOVE_COLUMNS, RATING_COLUMNS, TEACHER_COLUMNS
from patsim_utils.training import distil
from patsim_utils.training.objective import objective, teacher_loss


@pytest.fixture(scope="module")
def splits() -> dict[str, pd.DataFrame]:
    return load("sample")


@pytest.fixture(scope="module")
def mined(splits) -> pd.DataFrame:
    excluded = {*splits["validation"]["anchor"], "roller bearing"}
    return distil.mine(splits["train"], excluded=excluded, anchors=30, seed=0)


def test_new_anchors_are_none_of_the_known_ones_and_nothing_excluded_is_mined(splits, mined) -> None:
    excluded = {*splits["validation"]["anchor"], "roller bearing"}
    assert mined["anchor"].nunique() == 30
    assert not {*mined["anchor"]} & {*splits["train"]["anchor"]}
    assert not {*mined["anchor"], *mined["target"]} & excluded
    assert not mined.duplicated().any()
    assert (mined["anchor"] != mined["target"]).all()
    first = mined.groupby("anchor")["context"].transform("first")
    assert 10 < (mined["context"] == first).sum() / 30 < 18
    second = mined[mined["context"] != first]
    assert second.groupby("anchor").size().between(distil.NEAREST - 1, distil.NEAREST).all()
    assert second["anchor"].nunique() > 20
    in_first = mined.loc[mined["context"] == first, ["anchor", "target"]]
    assert len(second.merge(in_first)) == len(second)


def test_the_same_seed_mines_the_same_pairs(splits, mined) -> None:
    excluded = {*splits["validation"]["anchor"], "roller bearing"}
    again = distil.mine(splits["train"], excluded=excluded, anchors=30, seed=0)
    pd.testing.assert_frame_equal(mined, again)


def outputs_of(n: int, *, seed: int = 0) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(n, width, generator=generator) for width in (4, 8, 8, 10)]
    return Outputs(*draw)


def test_teacher_loss_is_the_cross_entropy_of_a_slow_loop() -> None:
    outputs = outputs_of(5)
    above = torch.rand(5, 4)
    ratings = torch.rand(5, 10).softmax(-1)
    terms = teacher_loss(outputs, torch.cat([above, ratings], dim=-1))
    by_rank = by_rating = 0.0
    for n in range(5):
        for k in range(4):
            p = torch.sigmoid(outputs.ordinal_logits[n, k])
            by_rank -= above[n, k] * p.log() + (1 - above[n, k]) * (1 - p).log()
        by_rating -= (ratings[n] * outputs.rating_logits[n].log_softmax(-1)).sum()
    assert terms["ordinal"].item() == pytest.approx(by_rank.item() / 5, rel=1e-5)
    assert terms["rating"].item() == pytest.approx(by_rating.item() / 5, rel=1e-5)


def batch_of(n: int) -> dict[str, torch.Tensor]:
    numbers = torch.arange(n)
    return {
        "rank": numbers % 5,
        "rating": numbers % 10,
        "anchor_text": numbers // 3,
        "target_text": 100 + numbers,
    }


def test_rated_and_labelled_pairs_count_by_their_share() -> None:
    config = Config(rating_weight=1.0)
    outputs, batch = outputs_of(8), batch_of(8)
    teacher = torch.rand(8, 14)
    teacher[:6] = torch.nan
    terms = objective(outputs, batch | {"teacher": teacher}, config)
    first = Outputs(*(value[:6] for value in vars(outputs).values()))
    last = Outputs(*(value[6:] for value in vars(outputs).values()))
    rated = dual_loss(first, {name: value[:6] for name, value in batch.items()}, config)
    labelled = teacher_loss(last, teacher[6:])
    assert terms["ordinal"].item() == pytest.approx((0.75 * rated["ordinal"] + 0.25 * labelled["ordinal"]).item())
    assert terms["rating"].item() == pytest.approx((0.75 * rated["rating"] + 0.25 * labelled["rating"]).item())
    assert terms["contrast"].item() == pytest.approx(0.75 * rated["contrast"].item())


@pytest.mark.parametrize("labelled", [0, 8])
def test_a_batch_of_one_kind_has_a_finite_loss(labelled: int) -> None:
    teacher = torch.full((8, 14), torch.nan)
    teacher[:labelled] = 0.1
    terms = objective(outputs_of(8), batch_of(8) | {"teacher": teacher}, Config())
    assert all(torch.isfinite(term) for term in terms.values())


def test_a_killed_labelling_goes_on_where_it_was(splits, mined, tiny_backbone, tmp_path, monkeypatch) -> None:
    config = Config(backbone=tiny_backbone("bert"), contrast_layer=1)
    torch.manual_seed(0)
    teacher = Matcher(config)
    monkeypatch.setattr(distil, "SHARD", 10)
    whole = distil.label([teacher], mined, tmp_path / "whole")
    assert np.allclose(whole[list(RATING_COLUMNS)].sum(axis=1), 1, atol=1e-3)
    assert (whole[list(ABOVE_COLUMNS)].diff(axis=1).iloc[:, 1:] <= 1e-4).all(axis=None)  # P(rank > k) falls along k

    asked = []
    plain = distil._probabilities

    def stopped(matcher: Matcher, pairs: pd.DataFrame) -> np.ndarray:
        asked.append(len(pairs))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return plain(matcher, pairs)

    monkeypatch.setattr(distil, "_probabilities", stopped)
    with pytest.raises(KeyboardInterrupt):
        distil.label([teacher], mined, tmp_path / "killed")
    resumed = distil.label([teacher], mined, tmp_path / "killed")
    assert len(asked) == 4  # the first part is not labelled again
    pd.testing.assert_frame_equal(resumed, whole)


def test_a_student_learns_from_rated_and_labelled_pairs(splits, tiny_backbone, tmp_path: Path) -> None:
    config = Config(backbone=tiny_backbone("bert"), contrast_weight=0, layout="packed", epochs=1, batch_size=64)
    small = splits | {"train": splits["train"].head(200)}
    torch.manual_seed(0)
    teacher = Matcher(config)
    teacher.save(tmp_path / "teacher" / "model")
    metrics = distil.distil(small, config, [tmp_path / "teacher"], tmp_path / "student", anchors=20)
    assert metrics["train"]["n"] > 400
    excluded = {*splits["validation"]["anchor"], *splits["test"]["anchor"]}
    pairs = distil.mine(small["train"], excluded=excluded, anchors=20, seed=config.seed)
    (labels,) = (tmp_path / ".student.labels").iterdir()
    labelled = pd.read_csv(labels / "0000.csv", keep_default_na=False)
    assert labelled[["anchor", "target", "context"]].equals(pairs)
    rows = distil.student_rows(small["train"], labelled, excluded=excluded)
    made = rows[len(small["train"]) :]
    made = made[made[TEACHER_COLUMNS[0]].isna()]
    assert (made.query("rating == '4'")["score"] == 1).all()
    assert set(made["rating"]) <= {"4", "1a"}
    learned = rows[list(TEACHER_COLUMNS)].notna().all(axis=1).sum()
    assert (
        len(labelled) - len(made) <= learned <= len(labelled)
    )  # a pair made by rule takes the place of a labelled one
    assert len(made) > 0
    assert not {*made["anchor"], *made["target"]} & excluded


def test_a_variant_is_the_same_and_an_opposite_an_antonym() -> None:
    phrases = pd.DataFrame({"anchor": ["strong fibre", "axle", "upper door"], "context": ["D01", "B60", "B60"]})
    rows = distil.by_rule(phrases, excluded={"lower door"}, seed=0)
    assert rows[["target", "score", "rating"]].values.tolist()[:2] == [
        ["strong fiber", 1.0, "4"],
        ["weak fibre", 0.25, "1a"],
    ]
    assert "lower door" not in set(rows["target"])


def without_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Miners draw a vector for each phrase."""

    def vectors(phrases: list[str], *, tokenizer: object, model: object) -> torch.Tensor:
        assert tokenizer.removeprefix("tokenizer") == model.removeprefix("model")
        drawn = torch.randn(len(phrases), 6, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(drawn, dim=1)

    def load_backbone(backbone: str) -> SimpleNamespace:
        return SimpleNamespace(eval=lambda: f"model of {backbone}")

    monkeypatch.setattr(distil.encoder, "load_backbone", load_backbone)
    monkeypatch.setattr(distil.encoder, "load_tokenizer", "tokenizer of {}".format)
    monkeypatch.setattr(distil.encoder, "sentence_vectors", vectors)


def miner_of(monkeypatch: pytest.MonkeyPatch, train: pd.DataFrame, **options: object) -> distil.Miner:
    without_encoder(monkeypatch)
    return distil.Miner(train, backbone="tiny", **options)


def rated_pairs() -> pd.DataFrame:
    """120 pairs of 12 anchors in two classes."""
    random = np.random.default_rng(4)
    anchors = [f"anchor {number % 12}" for number in range(120)]
    targets = [f"target {number:02}" for number in random.integers(0, 90, 120)]
    return pd.DataFrame(
        {"anchor": anchors, "target": targets, "context": np.where(np.arange(120) % 12 < 6, "A01", "B60")}
    )


def test_candidates_are_those_of_a_slow_loop(monkeypatch) -> None:
    train = rated_pairs()
    excluded = {"target 07", "anchor 3"}
    miner = miner_of(monkeypatch, train, excluded=excluded, seed=5)
    phrases = sorted({*train["anchor"], *train["target"]} - excluded)
    assert miner.phrases.tolist() == phrases
    random = np.random.default_rng(5)

    def numbers(rows: pd.DataFrame) -> list[int]:
        return sorted({phrases.index(target) for target in rows["target"] if target not in excluded})

    for row in (0, 3, 17, 64):
        source_anchor, phrase, context = train.iloc[row][["anchor", "target", "context"]]
        own = phrases.index(phrase)
        near = sorted(range(len(phrases)), key=lambda n, own=own: -(miner.vectors[n] @ miner.vectors[own]))
        near = [n for n in near if n != own][:40]
        in_class = numbers(train[train["context"] == context])
        group = numbers(train[(train["anchor"] == source_anchor) & (train["context"] == context)])
        expected = near[:4] + random.choice(near[4:], 3, replace=False).tolist()
        by_similarity = sorted(in_class, key=lambda n, own=own: -(miner.vectors[n] @ miner.vectors[own]))
        expected += [n for n in by_similarity if n not in (own, *near[:4])][:2]
        expected += random.choice(group, min(3, len(group)), replace=False).tolist()
        expected += random.choice(in_class, 3, replace=False).tolist()
        expected.append(int(random.integers(len(phrases))))
        if source_anchor not in excluded:
            expected.append(phrases.index(source_anchor))
        texts = [phrases[n] for n in dict.fromkeys(expected) if n != own]
        assert miner.candidates(phrase, source_anchor=source_anchor, context=context) == texts


def test_half_of_the_new_anchors_are_names_of_groups(monkeypatch, tmp_path: Path) -> None:
    train = rated_pairs()
    lines = ["A01B\t\tFARMING TOOLS", *(f"A01B{n}/00\t0\tHand plough {n}" for n in range(30)), "C08L\t\tRESINS"]
    lines += ["C08L1/00\t0\tEpoxy resins", "B60B1/00\t0\tTarget 01", "A01B31/00\t0\tHarrow"]
    with zipfile.ZipFile(tmp_path / "titles.zip", "w") as archive:
        archive.writestr("cpc-section-A_20300101.txt", "\n".join(lines))
    titles = distil.of_titles(tmp_path / "titles.zip", train)
    assert set(titles["context"]) == {"A01", "B60"}

    without_encoder(monkeypatch)
    pairs = distil.mine(train, excluded=["target 07", "harrow"], anchors=21, titles=titles, seed=2)
    anchors = set(pairs["anchor"])
    of_titles = {anchor for anchor in anchors if anchor.startswith("hand plough")}
    assert len(anchors) == 21
    assert len(of_titles) == 10
    assert anchors - of_titles <= set(train["target"])
    assert not {*anchors, *pairs["target"]} & {"target 07", "harrow", "epoxy resins"}
    mined = pairs[pairs["anchor"].isin(of_titles)]
    assert "farming tools" in set(mined["target"])
    assert set(mined["target"]) & of_titles
    assert set(mined["target"]) & set(train["target"])


def test_few_phrases_are_all_near(monkeypatch) -> None:
    train = rated_pairs().head(6)
    miner = miner_of(monkeypatch, train, excluded=[])
    first = train.iloc[0]
    candidates = miner.candidates(first["target"], source_anchor=first["anchor"], context=first["context"])
    assert len(candidates) == len(set(candidates))
    assert first["target"] not in candidates
    assert first["anchor"] in candidates
    same = miner_of(monkeypatch, train, excluded=[], seed=0)
    assert same.candidates(first["target"], source_anchor=first["anchor"], context=first["context"]) == candidates


def test_a_new_anchor_has_its_candidates_in_its_class_and_the_nearest_in_another(monkeypatch) -> None:
    train = rated_pairs()
    asked = []

    class Listed:
        def __init__(self, train: pd.DataFrame, *, excluded: set[str], seed: int) -> None:
            assert (excluded, seed) == ({"target 07"}, 6)
            self.generator = np.random.default_rng(seed)

        def candidates(self, phrase: str, *, source_anchor: str, context: str) -> list[str]:
            asked.append((phrase, source_anchor, context))
            return [f"{phrase} {number}" for number in range(6)]

    monkeypatch.setattr(distil, "Miner", Listed)
    pairs = distil.mine(train, excluded=["target 07"], anchors=9, seed=6)
    random = np.random.default_rng(6)
    expected = []
    for phrase, source_anchor, context in asked:
        first = train[train["target"] == phrase].iloc[0]
        assert (source_anchor, context) == (first["anchor"], first["context"])
        expected += [(phrase, f"{phrase} {number}", context) for number in range(6)]
        second = ["A01", "B60"][random.integers(2)]
        if second != context:
            expected += [(phrase, f"{phrase} {number}", second) for number in range(4)]
    assert list(pairs.itertuples(index=False, name=None)) == expected
    assert pairs.columns.tolist() == ["anchor", "target", "context"]
    assert len({phrase for phrase, *_ in asked}) == 9
    known = train.drop_duplicates("target")
    drawn = known[known["target"] != "target 07"].sample(n=9, random_state=6)["target"]
    assert [phrase for phrase, *_ in asked] == drawn.tolist()


def test_a_student_has_rated_pairs_then_made_ones_then_labelled_ones() -> None:
    train = pd.DataFrame(
        [
            ("belt", "strong strap", "A41", 0.5, "2a"),
            ("belt", "upper door", "A41", 0.0, "0"),
            ("strong rope", "belt", "B66", 0.0, "0"),
            ("belt", "hard disk", "G11", 0.0, "0"),
            ("belt", "lower lip", "A61", 0.0, "0"),
        ],
        columns=["anchor", "target", "context", "score", "rating"],
    )
    labels = dict.fromkeys(TEACHER_COLUMNS, 0.25)
    labelled = pd.DataFrame(
        [("hot pipe", "cold pipe", "F16"), ("hot pipe", "tube", "F16")], columns=["anchor", "target", "context"]
    ).assign(**labels)
    rows = distil.student_rows(train, labelled, excluded=["upper lip", "hard disk"], seed=1)
    pd.testing.assert_frame_equal(rows.head(5)[train.columns], train)
    made = rows[rows[TEACHER_COLUMNS[0]].isna()].iloc[5:]
    opposites = made[made["rating"] == "1a"]
    assert opposites[["anchor", "target", "context"]].values.tolist() == [
        ["hot pipe", "cold pipe", "F16"],
        ["strong strap", "weak strap", "A41"],
        ["upper door", "lower door", "A41"],
    ]
    assert set(opposites["score"]) == {0.25}
    last = rows.iloc[-1]
    assert last[["anchor", "target", "score", "rating"]].tolist() == ["hot pipe", "tube", 0.0, "0"]
    assert last[list(TEACHER_COLUMNS)].tolist() == [0.25] * 14
    assert rows[["anchor", "target", "context"]].duplicated().sum() == 0
    assert rows.index.tolist() == list(range(len(rows)))


def test_one_variant_of_a_phrase_is_drawn_and_another_spelling_has_precedence() -> None:
    phrases = pd.DataFrame({"anchor": ["metal pipe", "optical fibre", "steel of tin"], "context": "F16"})
    kinds = [{"number": "a", "order": "b"}, {"number": "c", "spelling": "d"}, {}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distil, "variants", lambda phrase: kinds[phrases["anchor"].tolist().index(phrase)])
        drawn = {distil.by_rule(phrases, excluded=set(), seed=seed)["target"].str.cat() for seed in range(9)}
        assert drawn == {"ad", "bd"}
        first = distil.by_rule(phrases, excluded=set(), seed=3)
        pd.testing.assert_frame_equal(distil.by_rule(phrases, excluded=set(), seed=3), first)
    assert first["score"].tolist() == [1.0, 1.0]
    assert first["rating"].tolist() == ["4", "4"]


def test_labels_are_the_mean_of_the_teachers_in_four_digits(tmp_path, monkeypatch, capsys) -> None:
    pairs = pd.DataFrame({"anchor": list("aabbcc"), "target": "null", "context": "F16"})
    monkeypatch.setattr(distil, "SHARD", 2)
    teachers = {"first": 0.123456, "second": 0.3}
    monkeypatch.setattr(distil, "_probabilities", lambda teacher, rows: np.full((len(rows), 14), teachers[teacher]))
    labelled = distil.label([*teachers], pairs, tmp_path / "a" / "labels")
    assert labelled["target"].tolist() == ["null"] * 6
    assert labelled[list(TEACHER_COLUMNS)].to_numpy() == pytest.approx(0.2117)
    assert sorted(path.name for path in (tmp_path / "a" / "labels").iterdir()) == ["0000.csv", "0001.csv"]
    assert capsys.readouterr().out == "labelled: 1 of 2 parts\nlabelled: 2 of 2 parts\n"
    monkeypatch.setattr(distil, "_probabilities", None)
    pd.testing.assert_frame_equal(distil.label([*teachers], pairs, tmp_path / "a" / "labels"), labelled)


def test_a_teacher_labels_with_its_regressor(mined, tiny_backbone, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = Matcher(Config(backbone=tiny_backbone("bert"), contrast_layer=1))
    pairs = mined.head(20)
    network_alone = teacher.score(pairs)
    teacher.regressor = SimpleNamespace(blend=lambda logits, frame: logits + len(frame))
    labelled = distil.label([teacher], pairs, tmp_path / "labels")
    scores = labelled[list(ABOVE_COLUMNS)].mean(axis=1)
    assert scores.to_numpy() == pytest.approx(teacher.score(pairs), abs=1e-4)
    assert (scores > network_alone).all()


def test_labels_of_other_teachers_or_pairs_go(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(distil.folders, "find", lambda teacher: f"found {teacher}")
    monkeypatch.setattr(distil.backbones, "identity", lambda model: f"content of {model}")
    pairs = pd.DataFrame({"anchor": ["a", "b"]})

    def folder(teachers: list[str], rows: pd.DataFrame) -> Path:
        labels = distil._label_folder(tmp_path / "runs" / "student", teachers, rows)
        labels.mkdir(exist_ok=True)
        return labels

    first = folder(["one", "two"], pairs)
    assert first.parent == tmp_path / "runs" / ".student.labels"
    assert folder(["one", "two"], pairs) == first
    for teachers, rows in ((["one"], pairs), (["one", "two"], pairs.head(1)), (["one", "two"], pairs)):
        other = folder(teachers, rows)
        assert list(first.parent.iterdir()) == [other]
    assert other == first


def test_a_teacher_without_ratings_is_refused(monkeypatch, tmp_path) -> None:
    networks = {"rated": 1, "unrated": None}
    monkeypatch.setattr(
        distil.Matcher,
        "load",
        lambda teacher: SimpleNamespace(network=SimpleNamespace(rating_head=networks[teacher.name])),
    )
    teachers = [tmp_path / "rated", tmp_path / "unrated"]
    with pytest.raises(InputError) as error:
        distil.distil({}, Config(), teachers, tmp_path / "student", anchors=3)
    assert str(error.value) == f"--teacher {tmp_path}/unrated: has learned no ratings (rating_weight 0)"


def test_labels_of_other_teachers_go_and_files_of_a_users_stay(tiny_backbone, tmp_path: Path) -> None:
    run = tmp_path / "run"
    teacher = tmp_path / "teacher"
    config = Config(backbone=tiny_backbone("bert"), contrast_layer=1)
    Matcher(config).save(teacher)  # a model alone, as others share it
    pairs = pd.DataFrame({"anchor": ["pump"], "target": ["valve"], "context": ["F04"]})
    first = distil._label_folder(run, [teacher], pairs)
    first.mkdir()
    (first.parent / "notes").mkdir()
    (first.parent / "notes.txt").touch()
    assert distil._label_folder(run, [teacher], pairs) == first
    Matcher(config).save(teacher)
    second = distil._label_folder(run, [teacher], pairs)
    assert second != first
    assert sorted(path.name for path in first.parent.iterdir()) == ["notes", "notes.txt"]


def test_two_distillations_of_one_name_do_not_take_each_others_labels(monkeypatch, tmp_path) -> None:
    runs = tmp_path / "runs"
    splits = {name: pd.DataFrame({"anchor": ["pump"]}) for name in ("train", "validation")}
    network = SimpleNamespace(network=SimpleNamespace(rating_head=1))
    monkeypatch.setattr(distil.Matcher, "load", lambda teacher: network)
    monkeypatch.setattr(distil, "mine", lambda *_, **options: options["anchors"])
    monkeypatch.setattr(distil, "_label_folder", lambda *_: runs)

    def label(*_: object) -> None:
        distil.distil(splits, Config(), [], runs / "student", anchors=4)

    monkeypatch.setattr(distil, "label", label)
    with pytest.raises(InputError, match="labels of run student is being written by another process"):
        distil.distil(splits, Config(), [], runs / "student", anchors=3)


def test_a_distillation_hands_each_step_what_the_one_before_made(monkeypatch, tmp_path, capsys) -> None:
    loaded = {tmp_path / "one": "first", tmp_path / "two": "second"}
    splits = {name: pd.DataFrame({"anchor": [f"of {name}"]}) for name in ("train", "validation", "test")}
    held_out = {"of validation", "of test"}
    config = Config(seed=4)
    rows = pd.DataFrame({"anchor": ["a"] * 1234})
    calls = []

    def step(result: object) -> Callable[..., object]:
        def called(*arguments: object, **options: object) -> object:
            calls.append((arguments, options))
            return result

        return called

    network = SimpleNamespace(rating_head=1)
    matchers = {name: SimpleNamespace(network=network, name=name) for name in loaded.values()}
    monkeypatch.setattr(distil.Matcher, "load", lambda teacher: matchers[loaded[teacher]])
    monkeypatch.setattr(distil, "mine", step("pairs"))
    monkeypatch.setattr(distil, "_label_folder", step("folder of labels"))
    monkeypatch.setattr(distil, "label", step("labelled"))
    monkeypatch.setattr(distil, "student_rows", step(rows))
    monkeypatch.setattr(distil, "fit", step({"train": 1}))
    folder = tmp_path / "student"
    for replace in (False, True):
        options = {"replace": True} if replace else {}
        assert distil.distil(splits, config, [*loaded], folder, anchors=7, **options) == {"train": 1}
        mined, lay, labelled, student, fitted = calls
        calls.clear()
        assert mined == ((splits["train"],), {"excluded": held_out, "anchors": 7, "titles": None, "seed": 4})
        assert lay == ((folder, [*loaded], "pairs"), {})
        assert labelled == (([*matchers.values()], "pairs", "folder of labels"), {})
        assert student == ((splits["train"], "labelled"), {"excluded": held_out, "seed": 4})
        (given, *others), settings = fitted
        assert given == splits | {"train": rows}
        assert others == [config, folder]
        assert settings == {"replace": replace}
    line = "1 rated pairs, 1,234 with those that the teacher labelled\n"
    assert capsys.readouterr().out == 2 * line


def test_a_target_in_two_classes_has_its_rules_in_the_first(monkeypatch) -> None:
    rows = [("belt", "strong strap", "A41"), ("rope", "strong strap", "B66"), ("belt", "belt", "B66")]
    train = pd.DataFrame(rows, columns=["anchor", "target", "context"]).assign(score=0.5, rating="2a")
    labelled = pd.DataFrame({"anchor": ["pipe"], "target": "tube", "context": "F16"})
    labelled = labelled.assign(**dict.fromkeys(TEACHER_COLUMNS, 0.25))
    seeds = []
    plain = distil.by_rule

    def noted(phrases: pd.DataFrame, *, excluded: set[str], seed: int) -> pd.DataFrame:
        seeds.append(seed)
        return plain(phrases, excluded=excluded, seed=seed)

    monkeypatch.setattr(distil, "by_rule", noted)
    student = distil.student_rows(train, labelled, excluded=[])
    distil.student_rows(train, labelled, excluded=[], seed=3)
    opposites = student[student["rating"] == "1a"]
    assert opposites[["anchor", "target", "context"]].values.tolist() == [["strong strap", "weak strap", "A41"]]
    assert seeds == [0, 3]


def test_a_student_without_ratings_learns_scores_alone() -> None:
    outputs, batch = outputs_of(8), batch_of(8)
    outputs.rating_logits = None
    teacher = torch.rand(8, 14)
    teacher[:6] = torch.nan
    terms = objective(outputs, batch | {"teacher": teacher}, Config(rating_weight=0.0))
    labelled = teacher_loss(Outputs(*(value[6:] for value in [*vars(outputs).values()][:3]), None), teacher[6:])
    assert list(labelled) == ["ordinal"]
    assert terms["rating"].item() == 0
    assert terms["ordinal"].item() > 0.25 * labelled["ordinal"].item()
