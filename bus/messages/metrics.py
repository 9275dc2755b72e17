"""metrics: what the host and its vPLCs use."""

from bus.messages.base import Event, event


@event("metrics.host.sampled", state_key="", period=5.0)
class HostSampled(Event, frozen=True, kw_only=True):
    """One sample of the host: CPU in percent of all cores together (0-100); RAM and disk; `uptime` of the agent in
    seconds, by the boot clock; `sampled_at` unix seconds.

    A GB is 2^30 bytes. The seed document only says "GB" of figures it takes from psutil in bytes; dividing by
    1024^3 is the common reading, it makes a host with 16 GB of RAM show about 16, and `free -g`, `df -h` agree.
    """

    cpu_usage: float
    memory_usage: float
    memory_total: float
    disk_usage: float
    disk_total: float
    uptime: float
    sampled_at: float
