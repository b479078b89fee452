"""An inspection by ironic-python-agent's own collectors, as its agent makes one. Prints what it would send."""

from ironic_python_agent import config
from ironic_python_agent import dmi_inspector
from ironic_python_agent import encoding
from ironic_python_agent import hardware
from ironic_python_agent import inspector
from ironic_python_agent import numa_inspector


class Failures:
    def add(self, *_):
        pass


def main():
    config.CONF([], project="ironic-python-agent")
    # No network is waited for, and no BMC is looked for where there is none.
    inspector.wait_for_dhcp = lambda: True
    data, failures = {}, Failures()
    inspector.collect_default(data, failures)
    inspector.collect_pci_devices_info(data, failures)
    inspector.collect_usb_devices(data, failures)
    numa_inspector.collect_numa_topology_info(data, failures)
    dmi_inspector.collect_dmidecode_info(data, failures)
    print(encoding.RESTJSONEncoder().encode(data))


main()
