"""Files that survive a power cut: written beside, flushed to disk, then renamed over the old one."""

import contextlib
import os
import secrets
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, mode: int = 0o640) -> None:
    """Replace `path` with `content` so that a reader or a power cut sees the old file or the new, whole.

    Raises `OSError` (for example no space left) and then leaves the old file untouched.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames inside `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_private_directory(directory: Path, *, mode: int = 0o750) -> None:
    """Create `directory` (and its parents) if missing; what exists keeps its mode."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=mode)
