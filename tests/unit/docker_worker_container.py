"""A container of ours as docker_worker sees it, for the unit tests: running, on one MACVLAN network."""

from typing import Any

from services.docker_worker.container import Container, Endpoint


def a_container(endpoint: Endpoint | None, network: str = "macvlan_ens37_192.168.10.0_24", **fields: Any) -> Container:
    """With `endpoint` on `network`, or on none; `fields` replace what is usual."""
    known: dict[str, Any] = {
        "id": "0" * 64,
        "name": "plc-001",
        "labels": {},
        "image_id": "sha256:1",
        "status": "running",
        "started_at": "2026-01-01T00:00:00Z",
        "exit_code": 0,
        "error": "",
        "restart_count": 0,
        "restart_policy": "always",
        "health": None,
        "environment": {},
        "endpoints": {network: endpoint} if endpoint else {},
    }
    return Container(**{**known, **fields})
