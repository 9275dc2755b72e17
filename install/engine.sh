#!/bin/sh
# engine.sh: make sure that a Docker engine answers.
#
# An engine that already answers at $DOCKER_HOST is used as it is. Otherwise Debian's own packages are
# installed and the engine is started: by systemd where that is PID 1, else as a background process.
#
#   engine.sh ensure  [--no-start] [--log FILE] [--pid-file FILE] [--dir DIR]
#   engine.sh install                       packages only, nothing is started
#   engine.sh stop    [--pid-file FILE]     stops the background engine that `ensure` started
#
#   --no-start   like ORCHESTRATOR_ENGINE_START=no: install when needed, but start nothing
#   --log        log of a background engine        (ORCHESTRATOR_ENGINE_LOG, /var/log/dockerd.log)
#   --pid-file   where its pid is written          (ORCHESTRATOR_ENGINE_PID, /run/orchestrator-engine.pid);
#                removed when `ensure` started nothing, so that a caller only stops what it started
#   --dir        where it keeps images and state   (ORCHESTRATOR_ENGINE_DIR, Docker's own folders)
#
# ORCHESTRATOR_ENGINE_WAIT is the longest wait for an answer in seconds (60).
# Exit code 0: done; 1: failed, with the reason on stderr; 2: wrong usage.
set -eu

HOST=${DOCKER_HOST:-unix:///var/run/docker.sock}
START=${ORCHESTRATOR_ENGINE_START:-yes}
LOG=${ORCHESTRATOR_ENGINE_LOG:-/var/log/dockerd.log}
PID_FILE=${ORCHESTRATOR_ENGINE_PID:-/run/orchestrator-engine.pid}
DIR=${ORCHESTRATOR_ENGINE_DIR:-}
WAIT=${ORCHESTRATOR_ENGINE_WAIT:-60}

say() { printf 'engine: %s\n' "$*"; }
fail() {
    printf 'engine: error: %s\n' "$*" >&2
    exit 1
}
usage() {
    printf 'engine: %s\nusage: engine.sh ensure|install|stop [--no-start] [--log FILE] [--pid-file FILE] [--dir DIR]\n' "$1" >&2
    exit 2
}

# --- is there one? ------------------------------------------------------------------------------

# A unix socket is asked directly: a command line that is too new or too old for the engine says "no"
# to an engine that is perfectly well.
answers() {
    case $HOST in
    unix://*)
        [ -S "${HOST#unix://}" ] && ping_socket "${HOST#unix://}"
        ;;
    *) timeout 10 docker version >/dev/null 2>&1 ;;
    esac
}

ping_socket() {
    python3 - "$1" <<'PY' 2>/dev/null
import socket, sys
with socket.socket(socket.AF_UNIX) as engine:
    engine.settimeout(3)
    engine.connect(sys.argv[1])
    engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
    sys.exit(b" 200 " not in engine.recv(64))
PY
}

# --- packages -----------------------------------------------------------------------------------

install_packages() {
    wanted=
    command -v dockerd >/dev/null || wanted="$wanted docker.io"
    command -v iptables >/dev/null || wanted="$wanted iptables"
    command -v tini >/dev/null || command -v docker-init >/dev/null || wanted="$wanted tini"
    # With AppArmor on in the kernel, the engine needs its parser to load the containers' profile.
    if grep -qs Y /sys/module/apparmor/parameters/enabled && ! command -v apparmor_parser >/dev/null; then
        wanted="$wanted apparmor"
    fi
    if [ -z "$wanted" ]; then
        say "packages are installed"
        return
    fi
    command -v apt-get >/dev/null || fail "no Docker engine here and no apt-get: install Docker and run this again"
    [ "$(id -u)" -eq 0 ] || fail "installing$wanted needs root: run this as root, or set DOCKER_HOST to a running engine"
    say "installing$wanted"
    # shellcheck disable=SC2086  # a list of words
    if ! apt_install $wanted 2>/dev/null; then
        say "refreshing the package lists"
        report=$(apt_get update 2>&1) || fail "apt-get update: $(printf '%s\n' "$report" | tail -n 5)"
        # shellcheck disable=SC2086
        report=$(apt_install $wanted 2>&1) || fail "apt-get install: $(printf '%s\n' "$report" | tail -n 5)"
    fi
}

apt_get() { DEBIAN_FRONTEND=noninteractive timeout 900 apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }
apt_install() { apt_get install --no-install-recommends "$@" >/dev/null </dev/null; }

# --- start --------------------------------------------------------------------------------------

start_with_systemd() {
    [ "$HOST" = unix:///var/run/docker.sock ] || [ "$HOST" = unix:///run/docker.sock ] ||
        fail "no engine answers at $HOST, and systemd would start one at unix:///var/run/docker.sock: unset DOCKER_HOST"
    say "starting docker.service"
    systemctl enable --now docker.service >/dev/null 2>&1 ||
        fail "systemctl could not start docker.service:
$(journalctl -u docker.service -n 15 --no-pager 2>&1)"
    wait_for_answer "" || fail "docker.service gives no answer at $HOST within $WAIT s:
$(journalctl -u docker.service -n 15 --no-pager 2>&1)"
}

start_in_background() {
    [ "$(id -u)" -eq 0 ] || fail "starting an engine needs root: run this as root, or set DOCKER_HOST to a running engine"
    data=${DIR:+$DIR/data} state=${DIR:+$DIR/exec} pid=${DIR:+$DIR/docker.pid}
    if running "${pid:=/var/run/docker.pid}" dockerd; then
        say "an engine is starting already (pid $(cat "$pid"))"
        wait_for_answer "" || fail "the engine with pid $(cat "$pid") gives no answer at $HOST within $WAIT s"
        return
    fi
    clear_leftovers "$pid" "${state:=/var/run/docker}"
    say "starting dockerd in the background, log $LOG"
    mkdir -p "$(dirname "$LOG")" "$(dirname "$PID_FILE")" "$(dirname "${HOST#unix://}")"
    setsid dockerd -H "$HOST" --data-root "${data:-/var/lib/docker}" --exec-root "$state" --pidfile "$pid" \
        </dev/null >>"$LOG" 2>&1 &
    engine=$!
    if ! wait_for_answer "$engine"; then
        what="dockerd ended again"
        ! kill "$engine" 2>/dev/null || what="dockerd gave no answer at $HOST within $WAIT s"
        fail "$what. The end of $LOG:
$(tail -n 15 "$LOG")"
    fi
    echo "$engine" >"$PID_FILE"
    say "dockerd runs with pid $engine, written to $PID_FILE"
}

# An engine that was killed leaves pid files behind; when another process has got the number since,
# dockerd refuses to start, and waits in vain for a containerd that is not there.
clear_leftovers() {
    for left in "$1:dockerd" "$2/containerd/containerd.pid:containerd"; do
        file=${left%:*}
        if [ -e "$file" ] && ! running "$file" "${left##*:}"; then
            say "removing $file: no such ${left##*:} runs"
            rm -f "$file"
        fi
    done
    # `docker run -v` of a socket that is missing makes a folder in its place.
    if [ -d "${HOST#unix://}" ]; then
        rmdir "${HOST#unix://}" || fail "${HOST#unix://} is a folder, a socket belongs there: remove it"
    fi
}

# Is the process in this pid file alive (no zombie) and the program we think it is?
running() {
    [ -s "$1" ] || return 1
    read -r number <"$1" || [ -n "$number" ] || return 1
    [ "$(cat "/proc/$number/comm" 2>/dev/null)" = "$2" ] && ! grep -qs '^State:.Z' "/proc/$number/status"
}

wait_for_answer() { # PID of the process that should answer, or nothing
    end=$(($(date +%s) + WAIT))
    until answers; do
        [ "$(date +%s)" -lt "$end" ] || return 1
        [ -z "$1" ] || kill -0 "$1" 2>/dev/null || return 1
        sleep 0.2
    done
}

# --- commands -----------------------------------------------------------------------------------

ensure() {
    if answers; then
        say "an engine answers at $HOST: using it"
        # The pid of an engine that an earlier call started stays valid; anything else is not ours.
        [ ! -e "$PID_FILE" ] || running "$PID_FILE" dockerd || rm -f "$PID_FILE"
        return
    fi
    case $HOST in
    unix://*) ;;
    *) fail "no engine answers at DOCKER_HOST=$HOST: check that address, or unset DOCKER_HOST to use a local engine" ;;
    esac
    [ ! -S "${HOST#unix://}" ] || [ -w "${HOST#unix://}" ] ||
        fail "no permission to use $HOST: run this as root, or join the group docker"
    say "no engine answers at $HOST"
    rm -f "$PID_FILE"
    install_packages
    if [ "$START" = no ]; then
        say "not starting it, as asked"
    elif [ "$(cat /proc/1/comm)" = systemd ] && [ -z "$DIR" ]; then
        start_with_systemd
        say "the engine answers at $HOST"
    else
        start_in_background
        say "the engine answers at $HOST"
    fi
}

stop() {
    if ! running "$PID_FILE" dockerd; then
        say "nothing to stop: $PID_FILE names no running dockerd"
        rm -f "$PID_FILE"
        return
    fi
    say "stopping dockerd, pid $(cat "$PID_FILE")"
    kill "$(cat "$PID_FILE")"
    end=$(($(date +%s) + WAIT))
    while running "$PID_FILE" dockerd; do
        [ "$(date +%s)" -lt "$end" ] || fail "dockerd $(cat "$PID_FILE") still runs after $WAIT s"
        sleep 0.2
    done
    rm -f "$PID_FILE"
    say "stopped"
}

[ $# -ge 1 ] || usage "no command given"
command=$1
shift
while [ $# -gt 0 ]; do
    case $1 in
    --no-start)
        START=no
        shift
        continue
        ;;
    --log | --pid-file | --dir) [ $# -ge 2 ] || usage "$1 needs a value" ;;
    *) usage "unknown option $1" ;;
    esac
    case $1 in
    --log) LOG=$2 ;;
    --pid-file) PID_FILE=$2 ;;
    --dir) DIR=$2 ;;
    esac
    shift 2
done

case $command in
ensure) ensure ;;
install) install_packages ;;
stop) stop ;;
*) usage "unknown command $command" ;;
esac
