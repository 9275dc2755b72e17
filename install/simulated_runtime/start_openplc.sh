#!/bin/bash
# What the container runs. As in the real image this shell stays in front of the runtime: as PID 1 it
# ignores SIGTERM and SIGINT, so a plain `docker stop` ends in SIGKILL unless the engine adds its init.
set -e
python3 -u -m simulated_runtime.runtime
