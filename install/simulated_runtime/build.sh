#!/bin/bash
# build.sh TAG        build the image of the simulated runtime on the engine of $DOCKER_HOST, without a registry
# build.sh --prepare  only what takes the network: its root file system, into the cache
#
# Its root file system is made once and kept in $ORCHESTRATOR_CACHE (/var/cache/orchestrator-agent), one
# folder per recipe and release; after that a build takes about a second. An image of the same source
# that is there already is left as it is. $DOCKER names the docker command to use.
set -euo pipefail

tag=${1:?usage: build.sh TAG|--prepare}
here=$(dirname "$(realpath "$0")")
cache=${ORCHESTRATOR_CACHE:-/var/cache/orchestrator-agent}
docker=${DOCKER:-docker}

say() { echo "simulated runtime: $*"; }
fail() { echo "simulated runtime: $*" >&2; exit 1; }
fingerprint() { cat "$@" | sha256sum | cut -c 1-16; }

# The root file system, made when it is not there yet; sets $base.
prepare() {
    mkdir -p "$cache" || fail "the cache folder $cache cannot be made: name another one in ORCHESTRATOR_CACHE"
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "$ID-${VERSION_CODENAME:-$VERSION_ID}")
    base=$cache/simulated-runtime-$release-$(uname -m)-$(fingerprint "$here/base.sh")
    # Two builds at once make the base once: the second waits here.
    exec 9>"$base.lock"
    flock -w 600 9 || fail "another build holds $base.lock for ten minutes"
    if [ ! -d "$base" ]; then
        say "making the root file system out of Debian packages (once, kept in $base)"
        rm -rf "$base.new"
        "$here/base.sh" "$base.new"
        mv "$base.new" "$base"
    fi
    flock -u 9
}

if [ "$tag" = --prepare ]; then
    prepare
    exit 0
fi

command -v "$docker" >/dev/null || fail "no docker command here: install docker.io, or name one in DOCKER"
timeout 20 "$docker" version >/dev/null 2>&1 || fail "no Docker engine answers at ${DOCKER_HOST:-its default socket}"

sources=("$here"/*.py "$here/start_openplc.sh")
source_id=$(fingerprint "$here/base.sh" "$here/build.sh" "${sources[@]}")
label=io.autonomy.simulated.source
present=$(timeout 20 "$docker" image inspect -f "{{index .Config.Labels \"$label\"}}" "$tag" 2>/dev/null || true)
if [ "$present" = "$source_id" ]; then
    say "$tag is up to date (a SIMULATED runtime, it executes no PLC program)"
    exit 0
fi

prepare
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/workdir/simulated_runtime" "$stage/workdir/build"
cp "$here"/*.py "$stage/workdir/simulated_runtime/"
cp "$here/start_openplc.sh" "$stage/workdir/"
chmod -R u=rwX,go=rX "$stage"

say "importing the image $tag"
tar -c --owner=0 --group=0 --numeric-owner -C "$base" . -C "$stage" ./workdir |
    timeout 300 "$docker" import \
        --change 'CMD ["bash","./start_openplc.sh"]' \
        --change 'WORKDIR /workdir' \
        --change 'EXPOSE 8443/tcp' \
        --change 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONUTF8=1' \
        --change "LABEL io.autonomy.simulated=true $label=$source_id" \
        --message "SIMULATED OpenPLC runtime" - "$tag" >/dev/null
say "$tag is ready. It is a SIMULATED runtime: it answers like an OpenPLC runtime v4 and executes no PLC program"
