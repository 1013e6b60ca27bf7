#!/bin/sh
# What this package does on a GPU, in one table: at most nine minutes, no network. `--dry`: a tiny shape, on the CPU.
#
#   tools/gpu_check.sh --data FOLDER --backbone FOLDER    FOLDER: the real data; MiniLM's weights (float16 will do)
#
# It needs torch, transformers, peft, accelerate, sentence-transformers, pandas, scikit-learn, scipy, pydantic. What the
# machine lacks is taken from wheels/ beside this script.
set -eu
here=$(dirname "$0")
python=$here/../.venv/bin/python
[ -x "$python" ] || python=python3
if ls "$here"/wheels/*.whl >/dev/null 2>&1; then
    "$python" -m pip install --quiet --no-index --no-deps "$here"/wheels/*.whl
fi
PYTHONPATH="$here/.." exec "${PYTHON:-$python}" "$here/gpu_check.py" "$@"
