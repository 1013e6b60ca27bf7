"""Package, lock, environment, workflows and Makefile agree with each other and with what is installed."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name(requirement: Requirement) -> str:
    """A requirement's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


def lock() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {name(requirement): requirement for requirement in found}


def ranges() -> list[Requirement]:
    return [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"])]


def test_the_lock_pins_every_package_exactly() -> None:
    for requirement in lock().values():
        assert re.fullmatch(r"==[^+*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None


@pytest.mark.parametrize("requirement", ranges(), ids=name)
def test_the_lock_lies_in_the_ranges(requirement: Requirement) -> None:
    pinned = str(lock()[name(requirement)].specifier).removeprefix("==")
    assert requirement.specifier.contains(pinned)


def test_the_lock_holds_what_its_packages_need() -> None:
    """Nothing that `pip install -r requirements.lock` would choose by itself."""
    pinned = lock()
    for requirement in pinned.values():
        for line in importlib.metadata.requires(requirement.name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                # The builds of torch for a GPU need packages that the build for the CPU does not.
                if needed.name.startswith(("nvidia", "cuda", "triton")):
                    continue
                assert name(needed) in pinned, f"{requirement.name} needs {needed}"


def test_every_import_of_the_package_is_declared() -> None:
    """Each third-party module imported below patsim_utils belongs to a declared dependency."""
    owners = importlib.metadata.packages_distributions()
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["scale"], *extras["serve"], *extras["onnx"]]
    declared = {name(Requirement(line)) for line in lines}
    for path in (ROOT / "patsim_utils").rglob("*.py"):
        for module in imported(path):
            if module not in sys.stdlib_module_names and module != "patsim_utils":
                # a module that is not installed has the name of its package
                found = {name(Requirement(owner)) for owner in owners.get(module, [module])}
                assert found & declared, f"{path.name} imports {module}"


def imported(path: Path) -> set[str]:
    """The packages that a module imports, anywhere in it."""
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add(node.module.partition(".")[0])
    return packages


def test_conda_installs_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    *packages, pip = environment["dependencies"]
    assert packages == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}


def test_workflows_follow_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    paths = [ROOT / ".github" / "workflows" / name for name in ("ci.yml", "study-gpu.yml")]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_style_tests_and_the_sample_study() -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make lint", ".ci/run", "make study"]
    assert "reports/sample" in steps[-1]["with"]["path"]
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "exec make test"


def test_the_workflows_use_inputs_as_text_alone() -> None:
    """Inputs reach a shell through its environment, and a path only after the name was checked; actions are pinned."""
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            for step in job["steps"]:
                assert "${{" not in step.get("run", "")
                assert "inputs." not in str(step.get("with", ""))
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", f"a/b@{'0' * 40}"))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "study-gpu.yml").read_text())
    inputs = workflow[True]["workflow_dispatch"]["inputs"]  # YAML 1.1 takes the key `on` for true
    steps = {step.get("name"): step for step in workflow["jobs"]["study"]["steps"]}
    given = {value.removeprefix("${{ inputs.").removesuffix(" }}") for value in steps["Study"]["env"].values()}
    assert set(inputs) == given
    assert set(steps["Study"]["env"]) == {"PRESET", "DATA", "NAME", "P"}
    assert 'check-name -- "$NAME"' in steps["Name"]["run"]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    """`make(arguments, variables)` -> what a stand-in for the interpreter was called with."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "[%s]" "$@" "$PATSIM_P"\n')
    python.chmod(0o755)
    for name in ("requirements.lock", "pyproject.toml", ".venv/installed"):
        (tmp_path / name).touch()

    def run(*arguments: str, **variables: str) -> str:
        command = ["make", "-C", str(tmp_path), "--no-print-directory", *arguments]
        outer = ("PRESET", "DATA", "NAME", "P", "JOBS", "MAKEFLAGS", "MAKELEVEL")  # of the make that runs the tests
        clean = {name: value for name, value in os.environ.items() if name not in outer}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=clean | variables)
        return done.stdout + done.stderr

    return run


TEXTS = ("it's here", "x' ; echo hit ; '", "$(shell echo hit >&2)", '$HOME "`id`" \\', "a\nb")


@pytest.mark.parametrize("shift", range(5))
@pytest.mark.parametrize("source", ["argument", "environment"])
def test_make_takes_what_it_is_given_as_text(make: Callable[..., str], shift: int, source: str) -> None:
    names = ("DATA", "PRESET", "NAME", "P")
    given = {name: TEXTS[(number + shift) % len(TEXTS)] for number, name in enumerate(names)}
    if source == "argument":
        said = make("study", *(f"{name}={text}" for name, text in given.items()))
    else:
        said = make("study", **given)
    options = "".join(f"[--{option}={given[option.upper()]}]" for option in ("preset", "data", "name"))
    assert said == f"[-m][patsim_utils][study]{options}[{given['P']}]"


def test_the_name_of_a_machine_is_no_name_of_a_study(make: Callable[..., str]) -> None:
    assert "[--name=sample]" in make("study", NAME="DESKTOP-1", WSL_DISTRO_NAME="Debian")
    assert "[--name=mine]" in make("study", "NAME=mine", NAME="DESKTOP-1", WSL_DISTRO_NAME="Debian")


def test_a_study_without_data_says_that_it_runs_on_the_sample(make: Callable[..., str]) -> None:
    said = make("study", "PRESET=described")
    assert said.startswith("DATA is not set: this study runs on the sample that ships\n[-m]")
    assert said.endswith("[--preset=described][--data=sample][--name=described][]")
    assert make("study").startswith("[-m]")
    assert make("study", "PRESET=described", "DATA=sample").startswith("[-m]")


def test_make_record_shares_a_study_that_is_named(make: Callable[..., str]) -> None:
    assert make("record", "NAME=a; echo hit") == "[-m][patsim_utils][record][--][a; echo hit][]"
    with pytest.raises(subprocess.CalledProcessError) as error:
        make("record")
    assert error.value.stdout == ""
    assert error.value.stderr.startswith("name the study to share: make record NAME=real\n")


def test_git_keeps_the_record_and_nothing_else_of_the_reports() -> None:
    kept = ["recorded/a/x.html", "template/style.css", "results.csv", "trials.md"]
    ignored = ["a/x.html", "index.html", ".a.lock", ".a.failed.json", "recorded/.a.new/x"]
    command = ["git", "check-ignore", "--no-index", *(f"reports/{path}" for path in [*kept, *ignored])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 128:
        pytest.skip("not a checkout of git")
    assert done.stdout.split() == [f"reports/{path}" for path in ignored]


def made(*arguments: str) -> str:
    """What make says it would do, or says."""
    command = ["make", "-C", str(ROOT), "--no-print-directory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_make_installs_the_lock_before_anything_else() -> None:
    said = made("-n", "-B", "test", "PYTHON=some-python").replace("\\\n", " ").splitlines()
    steps = ("sys.version_info >= (3, 11)", "some-python -m venv", "-r requirements.lock", "--no-deps", "-m pytest")
    found = [next(place for place, line in enumerate(said) if step in line) for step in steps]
    assert found == sorted(found)


def test_make_lab_works_as_root_and_takes_more_words() -> None:
    root = " --allow-root" if os.geteuid() == 0 else " "
    line = next(line for line in made("-n", "lab", "LAB_ARGS=--no-browser $(x)").splitlines() if "jupyter lab" in line)
    assert line.endswith(f"lab.clean{root} $LAB_ARGS")


def test_make_app_shows_the_page_that_is_asked_for(make: Callable[..., str], tmp_path: Path) -> None:
    voila = tmp_path / ".venv" / "bin" / "voila"
    shutil.copyfile(tmp_path / ".venv" / "bin" / "python", voila)
    voila.chmod(0o755)
    assert make("app") == "[notebooks/0_try.ipynb][]"
    with pytest.raises(subprocess.CalledProcessError) as error:
        make("app", "PAGE=6_search")
    assert error.value.stderr.startswith("6_search needs a study, whose model ranks: make study\n")
    (tmp_path / "runs" / "sample").mkdir(parents=True)
    (tmp_path / "runs" / "sample" / "metrics.json").touch()
    assert make("app", "PAGE=6_search", "LAB_ARGS=--no-browser") == "[notebooks/6_search.ipynb][--no-browser][]"


def test_make_help_lists_every_command() -> None:
    commands = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert commands is not None
    assert set(commands[1].split()) == set(re.findall(r"^make (\w+) +\w", made("help"), flags=re.MULTILINE))


def test_the_package_carries_its_data() -> None:
    """The command, and every file of patsim_utils that is not code, which the package data name."""
    assert PROJECT["scripts"] == {"patsim": "patsim_utils.tool.cli:main"}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = ROOT / "patsim_utils"
    carried = set()
    for module, names in patterns.items():
        folder = ROOT / module.replace(".", "/")
        for name in names:
            carried |= {path for path in folder.glob(name) if path.is_file()}
    others = {path for path in package.rglob("*.*") if path.suffix not in (".py", ".pyc")}
    assert carried == others
    assert package / "data" / "cpc.csv" in carried


def test_what_readme_names_is_kept() -> None:
    """A file that git ignores is there on one machine only."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    kept = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())
    texts = "".join((ROOT / page).read_text() for page in ("README.md", "reports/scale.md"))
    named = set(re.findall(r"`((?:reports|tools|tests|notebooks)/[\w/-]+\.\w+)`", texts))
    assert "reports/scale.md" in named
    assert named <= kept


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    assert max(map(len, lines)) <= 120
