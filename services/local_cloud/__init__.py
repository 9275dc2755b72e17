"""local_cloud: the cloud's side of the protocol, served on site, as a program of its own.

It knows agents only by their certificates and their Socket.IO sessions; it never speaks on the bus.
"""
