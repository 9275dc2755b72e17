"""A base image made of Debian packages: no registry is needed, and no maintainer script runs.

apt resolves and downloads the packages as if for an empty machine, dpkg-deb unpacks them, and the few things
that their scripts would have done are done here. The result is kept as a tar file in the cache.
"""

import hashlib
import shutil
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import docker

from tests.lab.process import run
from tests.lab.tools import apt_get, cache, cache_lock

BASE_TAG = "lab/base:latest"
IMPORT_DEADLINE = 300  # seconds
PIECE = 1 << 20  # bytes
PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "grep", "libc-bin", "sed"),
    *("busybox-static", "ca-certificates", "iproute2", "netbase", "openssl", "tini", "util-linux"),
    *("python3",),
)
# Wanted by dependencies, yet useless without a package manager inside.
LEFT_OUT = ("apt_", "debconf_", "dpkg_", "libpam", "perl-base_", "sysvinit-utils_", "tar_")
FOLDERS = ("dev", "proc", "root", "run", "sys", "tmp", "var/tmp")
USELESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/zoneinfo")


def base_image() -> Path:
    """The tar file of the base: Python 3, openssl, busybox, iproute2, tini. Built when not in the cache."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    tar = cache() / f"base-{recipe}.tar"
    with cache_lock():
        if not tar.exists():
            _build(tar)
    return tar


def load(docker_host: str, source: Path, tag: str) -> None:
    """Bring an image into an engine: the root folder of one, a tar of such a folder, or a `docker save` tar."""
    with closing(docker.DockerClient(base_url=docker_host, timeout=IMPORT_DEADLINE)) as engine:
        if source.is_dir():
            packer = ["tar", "--numeric-owner", "-C", str(source), "-c", "."]
            with subprocess.Popen(packer, stdout=subprocess.PIPE) as tar:
                _import(engine, tar.stdout, tag)
        elif _is_saved_image(source):
            with source.open("rb") as stream:
                repository, version = _name(tag)
                engine.images.load(stream)[0].tag(repository, version)
        else:
            with source.open("rb") as stream:
                _import(engine, stream, tag)


def _import(engine: docker.DockerClient, rootfs: IO[bytes] | None, tag: str) -> None:
    if rootfs is None:
        raise ValueError("no stream to import from")
    # A generator, not the file: for a file of known length the request would not be sent in chunks, though
    # the SDK's header says so.
    pieces = iter(lambda: rootfs.read(PIECE), b"")
    engine.api.import_image_from_stream(pieces, *_name(tag))


def _name(tag: str) -> tuple[str, str]:
    repository, _, version = tag.partition(":")
    return repository, version or "latest"


def _is_saved_image(tar: Path) -> bool:
    with tarfile.open(tar) as archive:
        return any(member.name == "manifest.json" for member in archive)


def _build(tar: Path) -> None:
    with TemporaryDirectory(prefix="base-", dir=cache()) as work:
        root, packages = Path(work, "root"), Path(work, "packages")
        root.mkdir()
        for package in _download(packages):
            run(["dpkg-deb", "--extract", package, root])
        _finish(root)
        unfinished = Path(work, "base.tar")
        run(["tar", "--numeric-owner", "-C", root, "-cf", unfinished, "."], timeout=IMPORT_DEADLINE)
        unfinished.rename(tar)


def _download(folder: Path) -> list[Path]:
    (folder / "partial").mkdir(parents=True)
    empty_machine = ["-o", "Dir::State::status=/dev/null", "-o", f"Dir::Cache::archives={folder}"]
    as_root = ["-o", "APT::Sandbox::User=root"]
    apt_get([*empty_machine, *as_root, "install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES])
    return [package for package in sorted(folder.glob("*.deb")) if not package.name.startswith(LEFT_OUT)]


def _finish(root: Path) -> None:
    """What the packages' scripts would have done."""
    for kind in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{kind}.master", root / f"etc/{kind}")
    (root / "bin/sh").unlink(missing_ok=True)
    (root / "bin/sh").symlink_to("dash")
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    authorities = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.write_bytes(b"".join(certificate.read_bytes() for certificate in authorities))
    run(["chroot", root, "/sbin/ldconfig"])
    for folder in USELESS:
        shutil.rmtree(root / folder, ignore_errors=True)
