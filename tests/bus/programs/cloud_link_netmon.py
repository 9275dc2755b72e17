"""A stand-in for netmon that knows one interface: `python -m tests.bus.programs.cloud_link_netmon`."""

from bus.messages.netmon import GetHostInterfaces, HostInterface, HostInterfaces
from bus.service import Service, start

ONE = HostInterface(name="ens37", ip_address="192.168.1.50", operstate="UP", gateway="192.168.1.1")


def interfaces(_context: None, _request: GetHostInterfaces) -> HostInterfaces:
    return HostInterfaces(interfaces=(ONE,))


def main() -> None:
    service = Service("netmon", start("netmon"), {GetHostInterfaces: interfaces}, None)
    service.ready()
    service.run()


if __name__ == "__main__":
    main()
