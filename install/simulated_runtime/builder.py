"""Uploads: a ZIP becomes the PLC program, or leaves the device with none.

A ZIP that fails the safety checks changes nothing. One that passes stops the PLC and deletes its program
before the build is tried, so a failed build destroys what ran before. Upstream means it so. Here a build
fails when the ZIP holds a file named `broken` (with any suffix).
"""

import hashlib
import io
import threading
import time
import zipfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from .journal import Journal
from .plc import Plc

MEMBER_BYTES = 10 * 1024 * 1024
TOTAL_BYTES = 50 * 1024 * 1024

NO_FILE = "No file part in the request"
UNSAFE = "Uploaded ZIP file failed safety checks"
BUSY = "Runtime is compiling another program, please wait"


@dataclass(frozen=True)
class Build:
    """A build as /api/compilation-status shows it; `exit_code` is None until it ended."""

    status: str = "IDLE"
    logs: tuple[str, ...] = ()
    exit_code: int | None = None


class Builder:
    """Turns uploads into the program of `plc`, one at a time; a build takes `seconds`."""

    def __init__(self, build_dir: Path, plc: Plc, journal: Journal, seconds: float) -> None:
        self._build_dir = build_dir
        self._plc = plc
        self._journal = journal
        self._seconds = seconds
        self._lock = threading.Lock()
        self._build = Build()

    def report(self) -> dict[str, object]:
        return asdict(self._build)

    def upload(self, archive: bytes | None) -> dict[str, object]:
        """The answer to an upload; `archive` is None when the request carried no field `file`."""
        with self._lock:
            problem = self._refusal(archive)
            if archive is not None and not problem:
                self._build = Build("UNZIPPING", ("[INFO] archive accepted",))
                threading.Thread(target=self._run, args=(archive,), name="build", daemon=True).start()
            status = self._build.status if problem else "COMPILING"
        return {"UploadFileFail": problem, "CompilationStatus": status}

    def _refusal(self, archive: bytes | None) -> str:
        if self._build.status in ("UNZIPPING", "COMPILING"):
            return BUSY
        if archive is None:
            self._build = Build("FAILED", (f"[ERROR] {NO_FILE}",))
            return NO_FILE
        if not _is_safe(archive):
            self._journal.write("WARNING", "upload refused: not a ZIP, too big, or with paths that lead out")
            return UNSAFE
        return ""

    def _run(self, archive: bytes) -> None:
        self._journal.write("INFO", "new program: stopping the PLC and removing its program")
        self._plc.halt()
        for program in self._build_dir.glob("libplc_*.so"):
            program.unlink()
        self._say("COMPILING", "[INFO] compiling (simulated)")
        time.sleep(self._seconds)
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            broken = [name for name in members.namelist() if PurePosixPath(name).stem == "broken"]
        if broken:
            self._say("FAILED", f"[ERROR] {broken[0]}: error: this program does not compile", exit_code=1)
            self._journal.write("ERROR", "build failed, the device is left without a program")
            return
        try:
            self._install(archive)
        except OSError as error:
            self._say("FAILED", f"[ERROR] {error}", exit_code=1)
            return
        self._say("SUCCESS", "[INFO] build finished", exit_code=0)

    def _install(self, archive: bytes) -> None:
        self._build_dir.mkdir(parents=True, exist_ok=True)
        unfinished = self._build_dir / "new_libplc.so"
        unfinished.write_bytes(archive)
        unfinished.rename(self._build_dir / f"libplc_{hashlib.sha256(archive).hexdigest()[:16]}.so")

    def _say(self, status: str, line: str, exit_code: int | None = None) -> None:
        self._build = replace(self._build, status=status, logs=(*self._build.logs, line), exit_code=exit_code)


def _is_safe(archive: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            infos = members.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return False
    paths = [PurePosixPath(info.filename) for info in infos]
    inside = not any(path.is_absolute() or ".." in path.parts for path in paths)
    small = all(info.file_size <= MEMBER_BYTES for info in infos)
    return inside and small and sum(info.file_size for info in infos) <= TOTAL_BYTES
