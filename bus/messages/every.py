"""Imports every declaration, for readers of all messages: the tap and the reference."""

from bus.messages import cloud_link, common, docker_worker, metrics, netmon

__all__ = ["cloud_link", "common", "docker_worker", "metrics", "netmon"]
