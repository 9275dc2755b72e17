"""A small stand-in for an OpenPLC runtime v4, for trials and tests where the real image cannot be pulled.

It runs no PLC program. It answers the REST interface of runtime 4.1.4 on HTTPS 8443, awkward behaviours
included, so that whoever manages it meets what the field will bring. Python standard library only: the
image holds python3, the openssl command, bash and busybox, nothing else.
"""
