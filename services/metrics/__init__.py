"""metrics: what the host and its vPLCs use, measured here and nowhere else."""
