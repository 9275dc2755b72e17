"""The contract between the services: envelope, errors, endpoints, pub/sub, request/reply, tap."""
