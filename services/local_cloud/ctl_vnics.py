"""vNICs on the command line: `--parent eth0 --ip 192.168.1.50/24 --gateway 192.168.1.1 --parent eth1 ...`.

Options describe the current vNIC; one that it already has begins the next (`--dns` adds up instead).
`--vnic name=plant,parent=eth0,...` gives several at once. Without `--ip` a vNIC is in DHCP mode.
"""

import argparse
import ipaddress
from collections.abc import Sequence
from typing import Any

OPTIONS = {"parent": "IF", "ip": "A.B.C.D/NN", "gateway": "G", "dns": "D", "mac": "M"}
_KEYS = ("name", *OPTIONS)

Described = dict[str, list[str]]


class _Describe(argparse.Action):
    """Collects the options, in their order, into a list of described vNICs."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        text = str(values)
        pairs = [(str(option_string).lstrip("-"), text)] if option_string != "--vnic" else []
        if option_string == "--vnic":
            for part in text.split(","):
                key, equals, value = part.partition("=")
                if not equals or key not in _KEYS:
                    raise argparse.ArgumentError(self, f"expected {'=, '.join(_KEYS)}=, got {part!r}")
                pairs.append((key, value))
        described: list[Described] = [*(getattr(namespace, "vnics", None) or [])]
        if not described or any(key in described[-1] and key != "dns" for key, _ in pairs):
            described.append({})
        for key, value in pairs:
            described[-1].setdefault(key, []).append(value)
        namespace.vnics = described


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the vNIC options to a parser; they end in `vnics`, for `vnic_configs`."""
    for name, placeholder in OPTIONS.items():
        parser.add_argument(f"--{name}", action=_Describe, metavar=placeholder, dest="vnics", default=[])
    parser.add_argument("--vnic", action=_Describe, metavar="name=...,parent=...", dest="vnics", default=[])


def vnic_configs(described: Sequence[Described]) -> list[dict[str, Any]]:
    """The `vnic_configs` of the wire. Raises `ValueError` with a sentence."""
    return [_vnic_config(position, options) for position, options in enumerate(described)]


def _vnic_config(position: int, options: Described) -> dict[str, Any]:
    config: dict[str, Any] = {"name": options.get("name", [f"eth{position}"])[0]}
    if "parent" not in options:
        raise ValueError(f"vNIC {config['name']}: --parent is missing (the host's interface it hangs on)")
    config["parent_interface"] = options["parent"][0]
    if "ip" in options:
        text = options["ip"][0]
        try:
            interface = ipaddress.IPv4Interface(text)
        except ValueError:
            raise ValueError(f"vNIC {config['name']}: --ip: expected A.B.C.D/NN, got {text!r}") from None
        config |= {"network_mode": "manual", "ip_address": str(interface.ip)}
        if "/" in text:
            config["subnet"] = str(interface.network)
    else:
        config["network_mode"] = "dhcp"
    if "gateway" in options:
        config["gateway"] = options["gateway"][0]
    if "mac" in options:
        config["mac_address"] = options["mac"][0]
    if "dns" in options:
        config["dns"] = options["dns"]
    return config
