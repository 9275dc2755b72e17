"""docker_worker: the vPLCs on this host, brought to where they shall be by one reconciler."""
