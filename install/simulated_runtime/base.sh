#!/bin/bash
# base.sh FOLDER: a root file system for the simulated runtime, made in FOLDER out of Debian packages.
#
# Packages are downloaded and unpacked, nothing is installed and no maintainer script runs, so neither
# root nor a registry is needed. It holds python3 with its standard library, openssl, bash and busybox.
set -euo pipefail
umask 022

root=$(realpath -m "${1:?usage: base.sh FOLDER}")
seeds=(python3-minimal libpython3-stdlib openssl bash busybox-static)
# Left out with the Python modules that would need them: nis, readline, curses, dbm.
unwanted='^lib(nsl|tirpc|readline|ncurses|db[0-9]|gdbm)'

fail() { echo "simulated runtime base: $*" >&2; exit 1; }

# Direct dependencies of the packages on standard input, real packages only, of first alternatives only.
depends() {
    xargs -r apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances | sed -nE 's/^  (Pre)?Depends: ([a-z0-9][^ <>:]*)(:.*)?$/\2/p'
}

# The seeds and every library or Python package below them.
closure() {
    local known new
    known=$(printf '%s\n' "${seeds[@]}" | sort -u)
    new=$known
    while [ -n "$new" ]; do
        new=$(depends <<<"$new" | grep -E '^(lib|zlib|python3)' | grep -vE "$unwanted" | sort -u |
            comm -13 <(echo "$known") -) || true
        known=$(printf '%s\n' "$known" "$new" | sort -u)
    done
    echo "$known"
}

# shellcheck disable=SC2046  # one word per package is meant
download() { timeout 300 apt-get -qq download $(closure); }

unpack() {
    local debs=$1/debs
    mkdir -p "$debs"
    cd "$debs"
    if ! download 2>../log; then
        timeout 300 apt-get -qq update >../log 2>&1 || fail "apt-get update: $(tail -3 ../log)"
        download 2>../log || fail "packages could not be downloaded: $(tail -3 ../log)"
    fi
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{dev,proc,sys,tmp,run,root,etc} "$root"/var/tmp
    # As the distribution lays it out; packages that still ship files under /bin or /lib land in /usr.
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
    ln -s /run "$root/var/run"
    for deb in ./*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --no-same-owner
    done
}

slim() {
    rm -rf "$root"/usr/share/{doc,man,locale,lintian,info,bug,menu,perl5,binfmts,applications,pixmaps}
    rm -rf "$root"/usr/lib/*/{gconv,perl*,audit,engines-3} "$root"/usr/lib/ssl/misc "$root"/etc/{skel,init.d}
    for python in "$root"/usr/lib/python3.*; do
        rm -rf "$python"/{test,idlelib,ensurepip,pydoc_data,lib2to3,turtledemo,tkinter,distutils,unittest}
        rm -f "$python"/lib-dynload/{nis,readline,_curses,_curses_panel,_dbm,_gdbm,_tkinter}.*
    done
}

furnish() {
    echo 'root:x:0:0:root:/root:/bin/bash' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    local busybox=$root/bin/busybox
    [ -x "$busybox" ] || fail "busybox is missing from its package"
    for applet in $("$busybox" --list); do
        [ -e "$root/usr/bin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
    done
}

# Run a command on the new root's own loader and libraries, whatever this machine has installed.
loaded() {
    local libraries loader
    libraries=$(dirname "$(find "$root/usr/lib" -name libc.so.6)")
    loader=$(find "$libraries" "$root/usr/lib" -maxdepth 1 -type f -name 'ld-linux*.so.*' | head -1)
    PYTHONHOME=$root/usr "$loader" --library-path "$libraries" "$@"
}

# Every program and Python module finds the libraries it links to inside the new root. The loader also
# tries this machine's folders, so "found" counts only below the root.
check() {
    local file missing
    missing=$(find "$root"/usr/bin/{bash,openssl,python3.*} "$root"/usr/lib/python3.*/lib-dynload -type f |
        while read -r file; do loaded --list "$file" 2>&1; done |
        grep -E ' => |not found' | grep -vF " => $root/" | sort -u) || true
    [ -z "$missing" ] || fail "libraries are missing: $missing"
}

# Bytecode of the modules that the runtime imports, so that the first start of a container compiles none.
compile() {
    loaded "$root/usr/bin/python3" -B - "$root" <<'PYTHON'
import dataclasses, hmac, http.server, json, py_compile, secrets, sqlite3, ssl, subprocess, sys, uuid, zipfile
root = sys.argv[1]
for module in list(sys.modules.values()):
    source = getattr(module, "__file__", None) or ""
    if source.startswith(root) and source.endswith(".py"):
        py_compile.compile(source, dfile=source.removeprefix(root), doraise=True)
PYTHON
}

for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || fail "it is made of Debian packages: $tool is needed"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unpack "$work"
slim
furnish
check
compile
