"""Pages, indexes and result tables."""

import html
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from patsim_utils.config import Config
from patsim_utils.data.splits import GOOGLE
from patsim_utils.errors import InputError
from patsim_utils.study import notebooks
from patsim_utils.study.pages import page, record
from patsim_utils.study.pages.index import write_index

FIXTURES = Path(__file__).parents[1] / "notebooks"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the fixture notebook that shows each kind of output."""
    copy = tmp_path_factory.mktemp("page") / "ends_well.ipynb"
    notebooks.execute(FIXTURES / "ends_well.ipynb", copy, {"name": "a & b"})
    titles = {"ends_well": "It ends <well>", "other": "Another: with more"}
    return page.page(copy, name="a & b", titles=titles, reports=ROOT / "reports")


def external(page: str) -> list[str]:
    """What a page would load from elsewhere: scripts, styles, fonts, images, frames."""
    tags = re.findall(r"<(?:script|link|img|iframe|source|video|audio|object|embed|use|image)\b[^>]*>", page)
    loaded = [tag for tag in tags if re.search(r"""(?:src|srcset|href|data)\s*=\s*["']?(?!data:|#)[^"'\s>]""", tag)]
    return [*loaded, *re.findall(r"(?:url\(|@import)\s*[\"']?(?!data:|#)[^)\s]+", page)]


def test_external_finds_what_is_loaded() -> None:
    for tag in ("<script src='//a.org/a.js'>", "<link href=a.css>", "<img src=a.png>", "<style>@import 'a'</style>"):
        assert external(tag)


def test_a_page_loads_nothing_folds_code_and_messages_and_shows_every_kind_of_output(shown: str) -> None:
    assert external(shown) == []
    assert "<script" not in shown
    folds = re.compile(r'<details class="folded.*?</details>', flags=re.DOTALL)
    folded, rest = "".join(folds.findall(shown)), folds.sub("", shown)
    for text in ("# Parameters", "learning_rate", "a warning that belongs behind a fold", "not bold"):
        assert text in folded
        assert text not in rest
    assert shown.count("<summary>Messages</summary>") == 1
    assert "<b>not bold" not in shown
    assert "<details open" not in shown
    for text in ("cell 11 of a wide table", "<strong>0.001</strong>", '<img alt="one pixel"', "<pre>6</pre>"):
        assert text in rest


def test_a_page_says_where_it_comes_from_but_names_no_folder_of_the_machine(shown: str) -> None:
    assert "<title>It ends &lt;well&gt; · a &amp; b</title>" in shown
    assert 'href="../index.html"' in shown
    assert '<a href="other.html">Another</a>' in shown
    assert re.search(r"\d{4}-\d\d-\d\d · commit \S+", shown)
    assert f"interpreter {sys.executable.removeprefix(f'{ROOT}/')} folder" in shown
    assert f"{ROOT}/" not in shown


def test_the_recorded_pages_load_nothing_and_are_small() -> None:
    for path in sorted((ROOT / "reports" / "recorded").rglob("*.html")):
        assert external(path.read_text(encoding="utf-8")) == [], path
        assert path.stat().st_size < 1.2e6, path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "reports" / "template", tmp_path / "reports" / "template")
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    columns, _, _ = (ROOT / "reports" / "results.csv").read_text().partition("\n")
    (tmp_path / "reports" / "results.csv").write_text(f"{columns}\npublished,theirs,,,,,,,0.8150,,,,,,,,,,,who,,,,,\n")
    monkeypatch.setattr(record, "ROOT", tmp_path)
    return tmp_path


def put(root: Path, name: str, *, seed: int = 0, pearson: float = 0.7, **changed: object) -> Path:
    """Leaves the record of a study."""
    folder = root / "reports" / name
    folder.mkdir()
    (folder / "2_train.html").write_text("a page")
    scores = {"n": 1234, "pearson": pearson, "pearson_ci": [0.65, 0.75], "spearman": 0.68, "mae": 0.15}
    metrics = {"validation": scores | {"qwk": 0.6, "loss": 0.5}, "protocol": changed.get("protocol", "anchor_disjoint")}
    metrics["data"] = {"train": changed.get("data", GOOGLE["train"])}
    metrics["train"] = {"seconds": 90.2, "device": "cpu", "precision": "fp32", "trainable_parameters": 7}
    metrics["baselines"] = {}
    metrics["environment"] = {"commit": "abc", "date": "2026-01-02", "seed": seed}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.json").write_text(Config(**{"seed": seed, "data": "./google"} | changed).model_dump_json())
    return folder


def test_the_index_shows_every_study_also_those_with_a_broken_record(root: Path) -> None:
    put(root, "one")
    put(root, "random", protocol="random", features="group", pearson=0.9)
    put(root, "together", features="group", pearson=0.8)
    put(root, "elsewhere", data="./mine", pearson=0.95)
    for name, file in {"cut": "metrics.json", "odd": "config.json"}.items():
        path = put(root, name) / file
        path.write_text(path.read_text()[:-20] if name == "cut" else '{"epocs": 3}')
    failed = {"date": "2026-01-03", "notebook": "2_train", "reason": "<x>"}
    (root / "reports" / ".gone.failed.json").write_text(json.dumps(failed))
    shutil.copytree(root / "reports" / "one", root / "reports" / "shared")
    record.record("shared")
    put(root, "two.old")
    for name in (".busy.work", "ideas", "recorded/ideas", "recorded/older", "ideas.old"):
        (root / "reports" / name).mkdir(parents=True)
        (root / "reports" / name / "5_ablation.html").touch()
    write_index(root / "reports")
    found = (root / "reports" / "index.html").read_text()
    assert external(found) == []
    rows = [re.sub("<[^>]+>", "|", row) for row in re.findall(r"<tr>(.*?)</tr>", found, flags=re.DOTALL)]
    told = {name: row for row in rows for name in ("one", "random", "cut", "odd", "gone") if f"|{name}|" in row}
    assert "0.700|" in told["one"]
    assert "[0.65,\u00a00.75]" in told["one"]
    assert "|MiniLM, the small model, few added weights trained |" in told["one"]
    assert html.escape(Config().describe()) in told["one"]
    assert "training has seen" not in told["random"]  # the title of its table says so
    assert "broken: JSONDecodeError" in told["cut"]
    assert "broken: config.json: there is no parameter &#39;epocs&#39;; did you mean epochs?" in told["odd"]
    assert "last run failed on 2026-01-03 (2_train: &lt;x&gt;); never succeeded" in told["gone"]
    assert sum("|two.old|" in row for row in rows) == 1  # a name that a user may give
    assert '<a href="one/2_train.html">one</a>' in found
    assert found.count('href="recorded/shared/2_train.html"') == 1
    ablations = re.findall(r'href="(.*?)">', found[found.index("What each idea") :])
    assert sorted(ablations) == [
        "ideas.old/5_ablation.html",
        "ideas/5_ablation.html",
        "recorded/older/5_ablation.html",
    ]
    (root / "reports" / "recorded" / "shared" / "3_errors.html").touch()
    (root / "reports" / "one" / "3_errors.html").touch()
    write_index(root / "reports")
    found = (root / "reports" / "index.html").read_text()
    start = found[found.index("<strong>Start here") : found.index("Each study below")]
    assert re.findall(r'href="(.*?)"', start)[0] in ("one/3_errors.html", "recorded/shared/3_errors.html")
    own = found[found.index("Your own studies") :]
    own = own[: own.index("</p>")]
    assert "gone (the last run failed), " in own
    assert '<a href="one/3_errors.html">one</a>, ' in own
    single, leaked = found.index("Single pairs"), found.index("Rows split at random")
    assert single < found.index('<a href="one/3_errors.html">one</a>', single) < leaked < found.rindex(">random<")
    assert single < found.index("Listwise") < found.rindex(">together<") < leaked
    reference = '<span class="reference">published: theirs</span>'
    assert found.index(">one<", single) < found.index(reference)  # the table has references last
    for other in ("random", "together", "elsewhere"):  # where to start: a figure of another kind is no better one
        assert other not in start
    assert "|validation, other data|" in next(row for row in rows if "|elsewhere|" in row)
    config = root / "reports" / "recorded" / "shared" / "config.json"
    for broken in (
        lambda: config.write_text("{"),
        lambda: config.write_text("[]"),
        config.unlink,
    ):  # the others are shown all the same
        broken()
        write_index(root / "reports")
        assert ">shared<" in (root / "reports" / "index.html").read_text()
    assert "elsewhere: 0.950" not in found  # nor does it stand among the others in the chart
    recorded = (root / "reports" / "recorded" / "index.html").read_text()
    assert re.findall(r'href="(.*html)"', recorded) == ["shared/2_train.html"] * 2  # the table, and where to start


def test_the_index_starts_with_the_models_that_ship(root: Path) -> None:
    put(root, "better", pearson=0.9)
    for name in ("large", "small"):
        (put(root, name) / "0_try.html").touch()
        record.record(name)
    for index, prefix in {"index.html": "recorded/", "recorded/index.html": ""}.items():
        text = (root / "reports" / index).read_text()
        start = text[text.index("<strong>Start here") : text.index("Each study below")]
        assert re.findall(r'href="(.*?)"', start) == [f"{prefix}small/0_try.html", f"{prefix}large/0_try.html"]


def test_a_study_is_recorded_and_shown_in_the_readme(root: Path) -> None:
    readme = root / "README.md"
    readme.write_text("before\n<!-- results:start -->\nold\n<!-- results:end -->\nafter\n")
    for name, seed, pearson in (("best", 0, 0.71), ("best-seed1", 1, 0.73), ("other", 0, 0.5)):
        put(root, name, seed=seed, pearson=pearson)
        record.record(name)
        record.record(name)
    table = pd.read_csv(root / "reports" / "results.csv", dtype=str)
    assert table["study"].tolist() == ["published", "best", "best", "other"]
    row = table.iloc[2][["seed", "n", "pearson", "low", "high", "seconds", "parameters", "commit"]]
    assert row.tolist() == ["1", "1234", "0.73000", "0.65000", "0.75000", "90", "7", "abc"]
    assert (root / "reports" / "recorded" / "best" / "2_train.html").read_text() == "a page"
    record.write_readme()
    before, header, rule, *rows, after = readme.read_text().splitlines()[1:]
    assert (before, after) == ("<!-- results:start -->", "after")
    assert rows == [
        f"| `best` | 0.720 [0.650, 0.750], 2 seeds | 2 | {record.SHOWN['best']} |",
        "<!-- results:end -->",
    ]
    readme.write_text("no marks")
    with pytest.raises(InputError, match=r"^README.md: the marks"):
        record.write_readme()
    with pytest.raises(InputError, match=r"^reports/none: there is no study of a run to record"):
        record.record("none")


def test_a_record_with_a_users_file_is_not_replaced_and_a_link_to_nothing_is_left_out(root: Path) -> None:
    put(root, "best")
    pages = root / "reports" / "best"
    (pages / "remarks.md").write_text("of the study")
    (pages / ".#remarks.md").symlink_to("an editor's lock")
    record.record("best")
    record.record("best")
    recorded = root / "reports" / "recorded" / "best"
    assert not (recorded / ".#remarks.md").is_symlink()
    assert (recorded / "remarks.md").read_text() == "of the study"
    (recorded / "notes.md").write_text("mine")
    with pytest.raises(InputError, match="recorded/best/notes.md: is no part of a record"):
        record.record("best")
    assert (recorded / "notes.md").read_text() == "mine"


def test_a_record_keeps_studies_apart(root: Path) -> None:
    put(root, "best", pearson=0.8)
    put(root, "best-seed1", pearson=0.5)  # of seed 0
    record.record("best")
    with pytest.raises(InputError, match="best-seed1 has seed 0"):
        record.record("best-seed1")
    put(root, "best-seed2", seed=2, layout="repeated")
    with pytest.raises(InputError, match="best-seed2 is no seed of best, which has other settings"):
        record.record("best-seed2")
    put(root, "best-seed3", seed=3)
    record.record("best-seed3")
    shutil.rmtree(root / "reports" / "best")
    put(root, "best", layout="packed")
    record.record("best")  # the method has changed: its study begins anew
    table = pd.read_csv(root / "reports" / "results.csv", dtype=str)
    assert table.loc[table["study"] == "best", "what"].tolist() == [Config(layout="packed").describe()]


def test_the_index_tells_a_sample_by_its_record_and_links_a_seed_alone(root: Path) -> None:
    put(root, "demo", data="sample", pearson=0.9)
    put(root, "resample")
    put(root, "x-seed1", seed=1)
    (put(root, "empty") / "metrics.json").write_text("{}")
    for name in ("demo", "resample", "x-seed1"):
        record.record(name)
    found = (root / "reports" / "index.html").read_text()
    rows = [re.sub("<[^>]+>", "|", row) for row in re.findall(r"<tr>(.*?)</tr>", found, flags=re.DOTALL)]
    told = {name: row for row in rows for name in ("demo", "resample", "empty") if f"|{name}|" in row}
    assert "|sample|" in told["demo"]
    assert "|validation|" in told["resample"]
    assert "broken: KeyError" in told["empty"]
    assert 'href="x-seed1/2_train.html"' in found


def test_an_ablation_is_recorded_by_its_variants(root: Path) -> None:
    (root / "reports" / "ideas").mkdir()
    (root / "reports" / "ideas" / "5_ablation.html").write_text("a page")
    (root / "runs" / "ideas-few").mkdir(parents=True)
    (root / "notebooks" / "variants").mkdir(parents=True, exist_ok=True)
    (root / "notebooks" / "variants" / "few.yaml").touch()
    one = {"variant": "described", "idea": "all", "seeds": 3, "pearson": 0.7, "low": 0.6, "high": 0.8, "seconds": 61.7}
    other = one | {"variant": "bce", "against": "described", "difference": -0.01, "commit": "abc"}
    pd.DataFrame([one, other]).to_csv(root / "runs" / "ideas-few" / "effects.csv", index=False)
    for _ in range(2):
        record.record("ideas")
    table = pd.read_csv(root / "reports" / "results.csv", dtype=str, keep_default_na=False)
    columns = ["variant", "pearson", "against", "difference", "what", "seconds", "commit"]
    rows = table[table["study"] == "ideas"][columns]
    assert rows.to_numpy().tolist() == [
        ["described", "0.70000", "", "", "all", "62", ""],
        ["bce", "0.70000", "described", "-0.01000", "all", "62", "abc"],
    ]
    assert (root / "reports" / "recorded" / "ideas" / "5_ablation.html").read_text() == "a page"
    shutil.rmtree(root / "reports" / "ideas")
    put(root, "ideas", pearson=0.71)  # the same study has a run, too
    record.record("ideas")
    table = pd.read_csv(root / "reports" / "results.csv", dtype=str, keep_default_na=False)
    assert table.loc[table["study"] == "ideas", "variant"].tolist() == ["described", "bce", ""]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("validation", 5),
        ("validation", {"n": 1, "pearson": "0.9"}),
        ("environment", None),
        ("train", []),
        ("protocol", {}),
        ("data", 7),
    ],
)
def test_a_damaged_record_is_one_line_and_is_not_recorded(root: Path, entry: str, value: object) -> None:
    path = put(root, "odd") / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: value}))
    before = (root / "reports" / "results.csv").read_text()
    with pytest.raises(InputError, match=f"no study of a run to record .'metrics.json: {entry}"):
        record.record("odd")
    assert (root / "reports" / "results.csv").read_text() == before
    assert not (root / "reports" / "recorded" / "odd").exists()


def test_a_text_in_the_place_of_a_figure_is_a_gap_in_the_index(root: Path) -> None:
    path = root / "reports" / "results.csv"
    path.write_text(path.read_text().replace("0.8150", "<b>much</b>"))
    write_index(root / "reports")
    assert "<b>much" not in (root / "reports" / "index.html").read_text()


def test_the_readme_shows_the_recorded_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert record.results_table(ROOT / "reports" / "results.csv") in readme, "run: make readme"
