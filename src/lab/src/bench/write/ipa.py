"""One image onto one disk by ironic-python-agent's own code, as its deploy step does it.

Arguments: stream|convert URL SHA256 FORMAT DEVICE. The certificate comes from REQUESTS_CA_BUNDLE. Prints what the work
alone took, since the agent itself has been running for long when it is asked for it.
"""

import json
import os
import resource
import sys
import time

from ironic_python_agent import config
from ironic_python_agent import disk_utils
from ironic_python_agent.extensions import standby


def spent():
    of = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in of)


def main():
    way, url, digest, disk_format, device = sys.argv[1:]
    config.CONF([], project="ironic-python-agent")
    config.CONF.set_override("image_download_connection_retries", 0)
    # It asks fuser who holds the disk, up to a minute long where the files of PID 1 cannot be seen. Nobody does.
    disk_utils.wait_for_disk_to_become_available = lambda device: None
    image = {
        "id": "bench",
        "urls": [url],
        "os_hash_algo": "sha256",
        "os_hash_value": digest,
        "checksum": digest,
        "disk_format": disk_format,
        "image_type": "whole-disk",
    }
    extension = standby.StandbyExtension()
    extension.partition_uuids = {}
    before, begun = spent(), time.monotonic()
    if way == "stream":
        extension._stream_raw_image_onto_device(image, device)
    else:
        extension._cache_and_write_image(image, device)
    # What is in the page cache is not written yet.
    descriptor = os.open(device, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)
    print(json.dumps({"wall_s": time.monotonic() - begun, "cpu_s": spent() - before}))


main()
