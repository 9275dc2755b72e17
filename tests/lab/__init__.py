"""A simulated edge host on one machine: namespaces for the host, its plant LANs and their PCs, and a
real Docker engine inside. `tests.lab.host.edge_host` is the way in; needs root, apt and nothing else.
"""
