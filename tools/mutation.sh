#!/usr/bin/env bash
# Mutation test of some modules with some tests, for example (reports/mutation.md has the rest):
#   tools/mutation.sh build/layouts 'patsim_utils/layouts/*' tests/layouts
# The folder keeps the mutants and their results; the same command goes on with a run that was stopped. SAMPLE=100
# tries so many mutants, drawn with seed 0; RETRY=1 tries
# those again that survived. PYTHON names a Python that has mutmut 3.8 beside requirements.lock.
set -eu
folder=$1
code=$2
shift 2
python=${PYTHON:-$PWD/.venv/bin/python}
mkdir -p "$folder/mutants"
cp -r patsim_utils tests pyproject.toml "$folder"
cd "$folder"
cat > setup.cfg <<END
[mutmut]
source_paths=patsim_utils
only_mutate=
    ${code// /$'\n'    }
pytest_add_cli_args_test_selection=
$(printf '    %s\n' "$@")
also_copy=fastest_first.py
pytest_add_cli_args=
    -pno:cacheprovider
    -pfastest_first
timeout_multiplier=4
timeout_constant=15
track_dependencies=false
END
# A mutant dies at the first test that fails: those of its own module come first, then fast ones, last those of a
# fixture that trains. That all tests pass without a mutant is seen where they are timed; later ten of them are tried.
cat > fastest_first.py <<END
import json
import os
import pathlib

TRAIN = {"killed", "whole", "finished"}
LIMIT = float(os.environ.get("LIMIT", "inf"))
SECONDS = {}
if pathlib.Path("mutmut-stats.json").exists():
    SECONDS = json.loads(pathlib.Path("mutmut-stats.json").read_text())["duration_by_test"]


def pytest_collection_modifyitems(items):
    mutant = os.environ.get("MUTANT_UNDER_TEST")
    module = mutant.split(".")[-2] if mutant and "." in mutant else ""
    items.sort(key=lambda item: rank(item, module))
    if mutant == "":
        del items[10:]
    if module:
        del items[within_limit(items) :]


def rank(item, module):
    trains = not TRAIN.isdisjoint(item.fixturenames)
    own = item.path.name == f"test_{module}.py"
    return trains, item.path.name if trains else "", not own, SECONDS.get(item.nodeid, 0)


def within_limit(items):
    seconds = 0.0
    for number, item in enumerate(items):
        seconds += SECONDS.get(item.nodeid, 0)
        if seconds > LIMIT:
            return max(1, number)
    return len(items)
END
export PYTHONPATH=$PWD/mutants HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
drawn=()
if [ -n "${RETRY:-}" ]; then
    mapfile -t drawn < <(grep -v ': \(killed\|not checked\)' results.txt | sed 's/ *\(.*\):.*/\1/')
elif [ -n "${SAMPLE:-}" ]; then
    "$python" -m mutmut run --max-children 1 "no such mutant" || true # makes the mutants and times the tests
    "$python" -m mutmut results --all true | sed 's/ *\(.*\):.*/\1/' | sort > all.txt
    mapfile -t drawn < <(shuf -n "$SAMPLE" --random-source=<(yes) all.txt)
fi
"$python" -m mutmut run --max-children "${JOBS:-1}" "${drawn[@]}"
"$python" -m mutmut results --all true > results.txt
