"""python -m tests.lab: get everything that takes the network, before tests with deadlines begin."""

from pathlib import Path

from tests.lab.cleanup import clear_dead_labs
from tests.lab.image import base_image
from tests.lab.process import run
from tests.lab.tools import ensure_tools

SIMULATED_RUNTIME = Path(__file__).resolve().parents[2] / "install/simulated_runtime/build.sh"

if __name__ == "__main__":
    print("lab: installing the engine, the DHCP server and busybox, where they are missing", flush=True)
    ensure_tools()
    print(f"lab: base image: {base_image()}", flush=True)
    run(["bash", SIMULATED_RUNTIME, "--prepare"], timeout=600)
    for name in clear_dead_labs():
        print(f"lab: cleared {name}, left by a killed run", flush=True)
