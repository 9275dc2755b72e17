"""The simulated runtime as a process: `python3 -m simulated_runtime.runtime`.

SIGINT is the graceful stop (exit 0); SIGTERM ends it where it stands, as with the real runtime. Exit 1:
the secrets on the state volume are spoilt. Exit 0 also for a spoilt certificate, which the real one does.
"""

import signal
import sys

from .builder import Builder
from .credentials import BadCertificate, BadSecrets, load_certificate, load_secrets
from .discovery import answer_questions
from .journal import Journal
from .plc import Plc
from .routes import Device
from .server import RuntimeServer
from .settings import VERSION, BadSetting, Settings, from_environment
from .users import Users


def main() -> int:
    """Run until SIGINT; the value is the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    journal = Journal()
    try:
        settings = from_environment()
        server = _assemble(settings, journal)
    except BadSetting as error:
        journal.write("ERROR", str(error))
        return 2
    except BadSecrets as error:
        journal.write("ERROR", f"{error}; the real runtime would ask on its terminal whether to make it anew")
        return 1
    except BadCertificate as error:
        journal.write("ERROR", f"{error}; giving up with code 0, as the real runtime does")
        return 0
    discovery = answer_questions(settings.address, settings.discovery_port, server.port, journal)
    journal.write("INFO", f"SIMULATED OpenPLC runtime {VERSION}: no PLC program is ever executed")
    journal.write("INFO", f"listening on https://{settings.address}:{server.port}, discovery on UDP {discovery}")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        _shut_down(server, journal)
    return 0


def _assemble(settings: Settings, journal: Journal) -> RuntimeServer:
    secrets = load_secrets(settings.state_dir / ".env")
    certificate, key = load_certificate(settings.certificate_dir, settings.key_bits)
    plc = Plc(settings.build_dir, journal, settings.start_seconds, settings.stop_seconds)
    device = Device(
        users=Users(settings.state_dir / "restapi.db", secrets.pepper, settings.password_rounds),
        plc=plc,
        builder=Builder(settings.build_dir, plc, journal, settings.build_seconds),
        journal=journal,
        jwt_key=secrets.jwt_key,
        token_seconds=settings.token_seconds,
    )
    return RuntimeServer((settings.address, settings.port), certificate, key, device)


def _shut_down(server: RuntimeServer, journal: Journal) -> None:
    """Log what a technician looks for after a graceful stop; a second SIGINT does not cut it short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    journal.write("INFO", "SIGINT: stopping")
    server.server_close()
    journal.write("INFO", "all plugins stopped")
    server.device.plc.halt()
    journal.write("INFO", "shutdown complete")


if __name__ == "__main__":
    sys.exit(main())
