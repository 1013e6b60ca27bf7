"""The pages of two configurations that differ in all that pages tell: what each says, and what would be false there."""

import html
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from patsim_utils.study import notebooks, parameters
from patsim_utils.study.pages import record
from patsim_utils.tool import cli
from patsim_utils.tool.commands import studies
from patsim_utils.training import runs

ROOT = Path(__file__).parents[2]
TINY = "-p layers 1 -p epochs 1 -p batch_size 32 -p backbone minilm -p contrast_layer 1"
CLASS_VECTORS = "Class vectors start from random numbers"
NO_CLASS_VECTORS = "This model has no class vectors"
RELATIONS = "Ratings given and the most probable ones"
NO_RELATIONS = "The model has learned scores, not ratings"
OTHERS = "a pair's score depends on the other ones"
CASES = {  # preset, data with ratings?: said, not said
    ("listwise", True): (
        [NO_CLASS_VECTORS, RELATIONS, OTHERS, "weight x rating"],
        [CLASS_VECTORS, NO_RELATIONS, "weight x contrast"],
    ),
    ("sample", False): (
        [CLASS_VECTORS, NO_RELATIONS, "weight x contrast"],
        [NO_CLASS_VECTORS, RELATIONS, OTHERS, "weight x rating", "Ratings, all splits together:"],
    ),
}


def make(folder: Path, *, rated: bool) -> Path:
    """A data set of twelve anchors of the sample, in training and validation."""
    folder.mkdir()
    for split in ("train", "validation"):
        frame = pd.read_csv(ROOT / "patsim_utils" / "data" / "sample" / f"{split}.csv")
        frame = frame[frame["anchor"].isin(frame["anchor"].unique()[:12])]
        frame.drop(columns=[] if rated else "rating").to_csv(folder / f"{split}.csv", index=False)
    return folder


def violations(page: str, folder: Path) -> str:
    """What axe-core finds against accessibility in a page, a line each, in a headless Chromium."""
    axe = (files("axe_core_python") / "axe.min.js").read_text().replace("</script", "<\\/script")
    tell = "r.violations.map(v => v.id + ' ' + v.nodes.length).join('\\n')"
    show = f"document.body.innerHTML = `<pre id=axe>${{{tell}}}</pre>`"
    run = f"addEventListener('load', () => axe.run().then(r => {show}))"
    (folder / "axe.html").write_text(page.replace("</body>", f"<script>{axe}</script><script>{run}</script></body>"))
    flags = "headless no-sandbox disable-gpu disable-background-networking disable-component-update disable-sync"
    flags += f" no-first-run user-data-dir={folder / 'chromium'} virtual-time-budget=20000 dump-dom"
    command = ["chromium", *(f"--{flag}" for flag in flags.split()), f"file://{folder / 'axe.html'}"]
    seen = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return re.search(r'<pre id="axe">(.*?)</pre>', seen, flags=re.DOTALL)[1]


@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium here")
def test_the_recorded_pages_are_accessible_and_axe_sees_what_is_not(tmp_path: Path) -> None:
    assert "image-alt 1" in violations('<html lang="en"><body><img src="data:,"></body></html>', tmp_path)
    recorded = {path.stem: path for path in sorted((ROOT / "reports" / "recorded").rglob("*.html"))}
    for stem in {*recorded} - {*notebooks.NOTEBOOKS}:  # one of each kind, but those that the next test makes anew
        assert violations(recorded[stem].read_text(), tmp_path) == "", recorded[stem]


@pytest.mark.parametrize(("preset", "rated"), CASES)
def test_pages_are_true_for_their_configuration(tmp_path: Path, monkeypatch, preset: str, rated: bool) -> None:
    for part in ("patsim_utils", "notebooks", "reports/template"):
        shutil.copytree(ROOT / part, tmp_path / part)  # with what Python has compiled
    data = make(tmp_path / "data", rated=rated)
    stems = ["1_explore", "2_train", "3_errors"][rated:]  # the first is the same for all that has ratings
    for module in (studies, notebooks, parameters, runs, record):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PATSIM_P", TINY)
    words = ["study", "--preset", preset, "--data", str(data), "--name", "one", "--notebooks", *stems]
    assert cli.main(words) == 0
    pages = {path.stem: path.read_text() for path in (tmp_path / "reports" / "one").glob("*.html")}
    assert set(pages) == {*stems}
    unseen = re.compile(r"<(style|script).*?</\1>|<details class=\"folded.*?</details>", flags=re.DOTALL)
    texts = {stem: html.unescape(unseen.sub("", page)) for stem, page in pages.items()}
    together = "\n".join(texts.values())
    said, unsaid = CASES[preset, rated]
    for sentence in said:
        assert sentence in together
    for sentence in unsaid:
        assert sentence not in together
    for stem, page in texts.items():
        verdict = re.search(r'<p class="verdict">(.*?)</p>', page, flags=re.DOTALL)[1]
        plain = re.sub(r"<span[^>]*\bpopover\b.*?</span>|<[^>]*>", "", verdict)  # without its explanations
        assert re.search(r"orders \d+ of 100 pairs rightly", plain)
        assert re.search(r"Pearson -?\d\.\d{3} \[-?\d\.\d{3}, -?\d\.\d{3}\] on validation", plain)
        assert page.index("<h1>") < page.index('class="verdict"') < page.index("<h2")
        assert "<strong>Pearson</strong>" in page  # explained, for a reader who has this page alone
        assert ('class="tiles"' in page) == (stem == "2_train")  # the summary stands once
        sections = len(re.findall(r'<(?:h2|details class="engineers") id="s\d+"', page))
        assert page.count('<li><a href="#s') == 2 * sections  # at the side, and on top of a narrow page
        assert "nan" not in re.findall(r"[a-z]+", re.sub(r"<svg.*?</svg>|<[^>]*>", " ", page, flags=re.DOTALL))
    anchors = pd.read_csv(data / "validation.csv")["anchor"].nunique()
    assert re.search(rf"pairs of {anchors} anchors", re.sub("<[^>]*>", "", texts["2_train"]))
    assert max(map(len, pages.values())) < 1.2e6
    if shutil.which("chromium"):
        for stem, page in pages.items():
            assert violations(page, tmp_path) == "", stem
