"""Who we are on the labels of what we make: the agent id, and every id that this state directory has ever used.

Before enrolment there is no agent id; then a random host id stands in. Objects labelled with an earlier id stay ours.
"""

import secrets
from pathlib import Path

import msgspec

from common.files import write_atomic

FILE = "owner_ids"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """`id` goes on new labels, objects labelled with any of `known` are ours."""

    id: str
    known: frozenset[str]


def recognise(state_dir: Path, agent_id: str | None) -> Owner:
    """Read the ids used so far, one a line, and add today's if it is new. Raises OSError."""
    file = state_dir / FILE
    used = file.read_text(encoding="utf-8").split() if file.exists() else []
    today = agent_id or next((one for one in used if one.startswith("local-")), f"local-{secrets.token_hex(8)}")
    if today not in used:
        used.append(today)
        write_atomic(file, "".join(f"{one}\n" for one in used).encode())
    return Owner(id=today, known=frozenset(used))
