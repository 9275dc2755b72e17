#!/bin/sh
# lock.sh PYTHON: resolve setup.cfg into requirements.txt and requirements-dev.txt, every file by its hash.
set -eu
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"$1" -m venv "$tools"
"$tools/bin/pip" install --quiet --disable-pip-version-check pip-tools
compile() {
    "$tools/bin/pip-compile" --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
        --no-emit-find-links --no-emit-index-url --no-emit-trusted-host "$@" setup.cfg
}
compile --output-file requirements.txt
compile --extra dev --constraint requirements.txt --output-file requirements-dev.txt
