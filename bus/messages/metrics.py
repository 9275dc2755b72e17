"""metrics: what the host and its vPLCs use."""

from bus.messages.base import Event, event


@event("metrics.host.sampled", state_key="", period=5.0)
class HostSampled(Event, frozen=True, kw_only=True):
    """One sample of the host: CPU in percent of all cores (0-100), memory and disk in GB (2^30 bytes),
    `uptime` of the agent in seconds, `sampled_at` unix seconds."""

    cpu_usage: float
    memory_usage: float
    memory_total: float
    disk_usage: float
    disk_total: float
    uptime: float
    sampled_at: float
