#!/bin/sh
# venv.sh PYTHON DIRECTORY REQUIREMENTS: the virtual environment, with exactly the hash-locked packages.
set -eu
python=$1 directory=$2 requirements=$3

say() { printf 'venv: %s\n' "$*"; }
fail() {
    printf 'venv: error: %s\n' "$*" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "$python is not installed: apt-get install python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old, 3.11 is needed: make run PYTHON=/path/to/python3.11"

if [ ! -x "$directory/bin/python" ]; then
    # Debian keeps this part of Python in a package of its own.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        [ "$(id -u)" = 0 ] || fail "python3-venv is missing: apt-get install python3-venv"
        say "installing python3-venv"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv >/dev/null ||
            fail "python3-venv could not be installed"
    fi
    say "making $directory"
    "$python" -m venv "$directory"
fi

say "installing $requirements"
"$directory/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$requirements" ||
    fail "pip could not install $requirements (no way to the package index?)"

# Let `python -m bus.tap` and friends be found from any directory.
packages=$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pwd >"$packages/orchestrator-agent.pth"
