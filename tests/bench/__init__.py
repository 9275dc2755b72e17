"""`make bench`: the figures, each beside the bare thing, from one run on one machine."""
