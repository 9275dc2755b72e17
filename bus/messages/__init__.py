"""Every event and request of the house, declared by its owner: one module a service."""
