"""The technician's view of the bus: `python -m bus.tap tail|rate|list|ping|call`."""
