"""TLS for the two ports: the agents' one demands a client certificate, the API's one is met with a token."""

import logging
import ssl
from collections.abc import Sequence

from services.local_cloud.authority import Authority
from services.local_cloud.limits import RateLimit

log = logging.getLogger(__name__)

_told = RateLimit(burst=10, per_second=0.2)


class _TellingHandshake(ssl.SSLObject):
    """asyncio is silent about failed handshakes; a technician with an expired certificate needs this line."""

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as problem:
            if _told.wait_for("handshake") == 0:
                log.warning("TLS handshake failed: %s", getattr(problem, "verify_message", None) or problem.reason)
            raise


def server_context(authority: Authority) -> ssl.SSLContext:
    """For the API port: this server shows its certificate. TLS 1.2 or newer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(authority.server_file)
    return context


def agent_context(authority: Authority, pinned_pem: Sequence[str]) -> ssl.SSLContext:
    """For the agents' port: a client certificate of our authority, or a pinned one, is required.

    No session tickets: a resumed session would skip the look at the certificate's dates.
    """
    context = server_context(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=str(authority.certificate_file))
    for pem in pinned_pem:
        trust(context, pem)
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.sslobject_class = _TellingHandshake
    return context


def trust(context: ssl.SSLContext, pinned_pem: str) -> None:
    """Let a pinned certificate through the handshake; whom it stands for is decided afterwards, by fingerprint."""
    context.load_verify_locations(cadata=pinned_pem)
