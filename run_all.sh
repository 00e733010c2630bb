#!/usr/bin/env bash
# Set up .venv from requirements.lock (once), then run offmarl in it.
#
#   ./run_all.sh --suite smac               regenerate Table 1 (offmarl run --suite smac)
#   ./run_all.sh --suite smac --dry-run     what that would do
#   ./run_all.sh report --suite smac        any other offmarl command
#   ./run_all.sh --test                     ruff, pyright and pytest
#
# PYTHON=/path/to/python3.12 ./run_all.sh … chooses the interpreter (3.11 to 3.13).
set -euo pipefail
home="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$home/.venv"

fail() { echo "run_all.sh: $*" >&2; exit 2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "needs Python 3.11, 3.12 or 3.13 with venv; install one, or name it: PYTHON=/path/to/python3.12 ./run_all.sh"
}

set_up() { # $1: "" or "[test]"
    local stamp
    stamp="$venv/set-up$1-$(cat "$home/requirements.lock" "$home/pyproject.toml" | cksum | tr ' ' '-')"
    [ -e "$stamp" ] && return
    local python
    python="$(find_python)" || exit 2
    echo "setting up $venv with $("$python" --version) (a few minutes and 2.5 GB, 6 GB with CUDA, once)" >&2
    "$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv"
    "$venv/bin/pip" install --no-compile --disable-pip-version-check --constraint "$home/requirements.lock" --editable "$home$1" >&2 ||
        fail "the set-up failed (see above); the same command tries again"
    echo "compiling to bytecode, on all cores" >&2 # pip would take one
    "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" >/dev/null 2>&1 || true
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
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$built/wheel" "$built"
    (cd "$built/wheel" && "$venv/bin/pyright" --pythonpath "$venv/bin/python" offmarl)
    # Bytecode is kept, whatever the user says of his own programs: tests start many processes.
    OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= "$venv/bin/python" -m pytest -n 2 --dist worksteal "$@"
}

case "${1:-}" in
    "" | -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
    --test) set_up "[test]" && shift && check "$@" ;;
    validate) set_up "[test]" && exec "$venv/bin/offmarl" "$@" ;;
    -*) set_up "" && exec "$venv/bin/offmarl" run "$@" ;;
    *) set_up "" && exec "$venv/bin/offmarl" "$@" ;;
esac
