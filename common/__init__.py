"""What every part may use and nothing else: no bus, no Docker, no network library in here."""
