"""UDP discovery: whoever asks `OPENPLC_DISCOVER_V1` learns version, host name and port, without a token."""

import json
import socket
import threading

from .journal import Journal
from .settings import VERSION

QUESTION = b"OPENPLC_DISCOVER_V1"


def answer_questions(address: str, port: int, api_port: int, journal: Journal) -> int:
    """Bind, answer from a thread of its own until the process ends, and return the port bound."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((address, port))
    answer = {
        "service": "openplc-runtime",
        "protocol_version": 1,
        "runtime_version": VERSION,
        "hostname": socket.gethostname(),
        "api_port": api_port,
    }
    payload = json.dumps(answer).encode()
    threading.Thread(target=_serve, args=(listener, payload, journal), name="discovery", daemon=True).start()
    return int(listener.getsockname()[1])


def _serve(listener: socket.socket, payload: bytes, journal: Journal) -> None:
    while True:
        try:
            question, sender = listener.recvfrom(2048)
            if question.strip() == QUESTION:
                listener.sendto(payload, sender)
        except OSError as error:
            # An ICMP refusal of an earlier answer lands here; the next question may be fine.
            journal.write("WARNING", f"discovery: {error}")
