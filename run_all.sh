#!/usr/bin/env bash
# Set up .venv from requirements.lock (once), then run offmarl in it.
#
#   ./run_all.sh --suite smac               regenerate Table 1 (offmarl run --suite smac)
#   ./run_all.sh --suite smac --dry-run     what that would do
#   ./run_all.sh report --suite smac        any other offmarl command
#   ./run_all.sh --test                     ruff, pyright and pytest
#
# PYTHON=/path/to/python3.12 ./run_all.sh … chooses the interpreter (3.11 to 3.13).
# TORCH=cpu|cuda ./run_all.sh … chooses PyTorch's build (default: cpu where no NVIDIA driver is found).
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # called as `sh run_all.sh`
set -euo pipefail
# What the caller's shell says of Python, pip and cd must not reach in here.
unset CDPATH PYTHONHOME PYTHONPATH PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT
unset PIP_DRY_RUN PIP_NO_BUILD_ISOLATION
export PIP_USER=0 PIP_REQUIRE_HASHES=0 # pip's configuration file may say otherwise

script="${BASH_SOURCE[0]}"
while [ -L "$script" ]; do # called through a link: the clone is where the file itself lies
    target="$(readlink "$script")"
    case "$target" in /*) script="$target" ;; *) script="$(dirname "$script")/$target" ;; esac
done
home="$(cd "$(dirname "$script")" && pwd -P)"
venv="$home/.venv"
python="$venv/bin/python"
CPU_INDEX="https://download.pytorch.org/whl/cpu"

fail() { echo "run_all.sh: $*" >&2; exit 2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "needs Python 3.11, 3.12 or 3.13 with venv (Debian, Ubuntu: apt install python3-venv); install one, or name it: PYTHON=/path/to/python3.12 ./run_all.sh"
}

# Half an environment, one of another Python or one that was moved here does not work, whatever its stamp says.
works() {
    [ -f "$venv/home" ] && [ "$(cat "$venv/home")" = "$home" ] &&
        "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("pip") is None)' 2>/dev/null
}

torch_build() {
    case "${TORCH:-}" in
        cpu | cuda) echo "$TORCH" ;;
        "") [ "$(uname -s)" != Linux ] || [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null && echo cuda || echo cpu ;;
        *) fail "TORCH=$TORCH: write cpu or cuda" ;;
    esac
}

install() {
    "$python" -m pip install --no-compile --disable-pip-version-check --constraint "$home/requirements.lock" "$@" >&2
}

# The lock names a version of torch; its CPU build has that version too and is a tenth of the size.
install_torch() {
    local build
    build="$(torch_build)" || exit 2
    "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' && return
    [ "$build" = cpu ] || return 0
    echo "no NVIDIA driver found (or TORCH=cpu): taking PyTorch's CPU build; TORCH=cuda takes the other" >&2
    install --retries 0 --timeout 15 --extra-index-url "$CPU_INDEX" torch ||
        echo "the CPU build cannot be had; going on with the default one" >&2
}

set_up() { # $1: "[games]", or "[test]", which has them too
    local stamp base
    stamp="$venv/set-up$1-$(cat "$home/requirements.lock" "$home/pyproject.toml" | cksum | tr ' ' '-')"
    works && [ -e "$stamp" ] && return
    base="$(find_python)" || exit 2
    echo "setting up $venv with $("$base" --version) (a few minutes and 2.5 GB, 6 GB with CUDA, once)" >&2
    if ! works; then
        "$base" -m venv --clear "$venv" || fail "$venv cannot be made (see above); the same command tries again"
        echo "$home" >"$venv/home"
    fi
    install_torch
    install --editable "$home$1" || fail "the set-up failed (see above); the same command tries again"
    echo "compiling to bytecode, on all cores" >&2 # pip would take one
    "$python" -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1 || true
    rm -f "$venv"/set-up"$1"-*
    touch "$stamp"
}

check() {
    built="$(mktemp -d)" # not local: the trap outlives the function
    trap 'rm -rf "$built"' EXIT
    cd "$home"
    "$venv/bin/ruff" check .
    "$venv/bin/ruff" format --check .
    # Types are checked on what a user installs: pyright cannot see through the editable install.
    cp -r pyproject.toml README.md LICENSE algorithms benchmarks datasets experiments reports tests "$built"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$built/wheel" "$built"
    (cd "$built/wheel" && "$venv/bin/pyright" --pythonpath "$python" offmarl/{algorithms,benchmarks,datasets,experiments,reports})
    # Bytecode is kept, whatever the user says of his own programs: tests start many processes.
    OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= "$python" -m pytest -n 2 --dist worksteal "$@"
}

case "${1:-}" in
    "" | -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$script" ;;
    --test) set_up "[test]" && shift && check "$@" ;;
    validate) set_up "[test]" && exec "$venv/bin/offmarl" "$@" ;;
    -*) set_up "[games]" && exec "$venv/bin/offmarl" run "$@" ;;
    *) set_up "[games]" && exec "$venv/bin/offmarl" "$@" ;;
esac
