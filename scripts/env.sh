# Sourced by the other scripts: makes or reuses .venv and installs what is missing.
#
#   NMT_EXTRAS   extras to install, "sample" or "sample,plots,dev"
#
# A torch that is already in .venv and in range stays as it is (a CUDA build, say);
# only what is missing comes from the constraints file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
if [ ! -x "$python" ]; then
    base=${PYTHON:-python3}
    if ! "$base" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2])' 2>/dev/null; then
        echo "error: $base: Python 3.10 or newer is needed" >&2
        echo "hint: PYTHON=/path/to/python3.12 bash $0" >&2
        exit 2
    fi
    echo "making .venv with $("$base" --version)" >&2
    # What ensurepip did not finish is not to be taken for whole the next time.
    trap 'rm -f "$python"; exit 130' INT TERM HUP
    "$base" -m venv .venv || {
        rm -f "$python"
        echo "error: $base cannot make a virtual environment" >&2
        echo "hint: install its venv module (Debian: apt install python3-venv)" >&2
        exit 2
    }
    trap - INT TERM HUP
fi

stamp=.venv/nmt-installed
wanted="$NMT_EXTRAS $("$python" --version) $(cat pyproject.toml scripts/constraints.txt | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing into .venv (once; PyTorch is the large part)" >&2
    constraints=.venv/nmt-constraints.txt
    present=$("$python" -c '
from importlib.metadata import PackageNotFoundError, version
try:
    found = version("torch")
except PackageNotFoundError:
    found = ""
in_range = found and tuple(map(int, found.split("+")[0].split(".")[:2])) >= (2, 6)
print(found if in_range else "")')
    if [ -n "$present" ]; then
        sed "s/^torch==.*/torch==$present/" scripts/constraints.txt >"$constraints"
    else
        cp scripts/constraints.txt "$constraints"
    fi
    "$python" -m pip install --quiet --disable-pip-version-check \
        --constraint "$constraints" --editable ".[$NMT_EXTRAS]"
    printf '%s' "$wanted" >"$stamp"
fi
PATH="$PWD/.venv/bin:$PATH"
