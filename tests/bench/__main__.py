"""Builds the simulated edge host and the product on it, measures, prints the table. Takes about five minutes."""

import os
import platform
import sys

from tests.bench import acks, creates, footprint
from tests.bench.table import Row, show
from tests.e2e.product import product
from tests.lab.host import edge_host


def main() -> int:
    """Measure everything, or only the parts named on the command line: acks, creates, footprint."""
    parts = {"acks": acks.rows, "creates": creates.rows, "footprint": footprint.rows}
    chosen = sys.argv[1:] or list(parts)
    rows: list[Row] = []
    with edge_host() as edge:
        plant = edge.lan("plant", "192.168.10.0/24")
        edge.nic("ens37", plant, address="192.168.10.5/24", gateway="192.168.10.1")
        edge.start_engine()
        with product(edge, edge.dir / "b") as running:
            for name in chosen:
                print(f"measuring: {name}", file=sys.stderr, flush=True)
                rows += parts[name](running)
    print(f"\n{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, one run\n")
    print(show(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
