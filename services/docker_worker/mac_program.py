"""Gives the interface that has an IPv4 address a MAC address. Prints the one it has then, or why not.

    python3 -I -c "<this text>" 192.168.1.100 06:00:5e:00:00:01

Runs inside a vPLC's network namespace, in an image that has no more than Python 3: standard library only, no import
of ours. Exit code 0 when the interface has the wanted MAC.
"""

import fcntl
import socket
import struct
import sys

# linux/sockios.h and linux/if_arp.h
SIOCGIFADDR, SIOCSIFHWADDR, SIOCGIFHWADDR = 0x8915, 0x8924, 0x8927
ARPHRD_ETHER = 1


def main(address: str, mac: str) -> str:
    """The MAC address that the interface of `address` has at the end. Raises OSError."""
    wanted = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = _interface(sock, socket.inet_aton(address))
        if _mac(sock, name) != wanted:
            fcntl.ioctl(sock, SIOCSIFHWADDR, struct.pack("16sH6s8x", name, ARPHRD_ETHER, wanted))
            _announce(name, wanted, socket.inet_aton(address))
        return _mac(sock, name).hex(":")


def _interface(sock: socket.socket, address: bytes) -> bytes:
    for _, text in socket.if_nameindex():
        try:
            found = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("16s16x", text.encode()))
        except OSError:
            continue  # has no address
        if found[20:24] == address:
            return text.encode()
    raise OSError(f"no interface has the address {socket.inet_ntoa(address)}")


def _mac(sock: socket.socket, name: bytes) -> bytes:
    return fcntl.ioctl(sock, SIOCGIFHWADDR, struct.pack("16s16x", name))[18:24]


def _announce(name: bytes, mac: bytes, address: bytes) -> None:
    """Who has met the vPLC under its other MAC shall forget that (RFC 5227, 2.3)."""
    ethernet = b"\xff" * 6 + mac + b"\x08\x06"
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, address, b"\0" * 6, address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((name.decode(), 0))
        raw.send(ethernet + arp)


if __name__ == "__main__":
    try:
        has = main(sys.argv[1], sys.argv[2])
    except OSError as problem:
        sys.exit(str(problem))
    sys.stdout.write(has + "\n")
    sys.exit(has != sys.argv[2])
