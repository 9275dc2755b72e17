"""The gateway to the cloud: one Socket.IO session over mutual TLS, and an answer to every command."""
