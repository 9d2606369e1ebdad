"""What a machine must have for a local cluster and its images, and the packages that the harness may install: as root, on a Debian-like one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.harness.state import HarnessFailure, announce

# A file that proves a package, and the package.
PACKAGES = {
    "/usr/bin/containerd": "containerd",
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "/usr/bin/buildah": "buildah",
    "/usr/sbin/debootstrap": "debootstrap",
    "/usr/bin/etcd": "etcd-server",
    "/bin/busybox": "busybox-static",
    "/usr/sbin/iptables": "iptables",
    "/usr/sbin/conntrack": "conntrack",
    "/usr/bin/openssl": "openssl",
    "/usr/bin/nsenter": "util-linux",
    "/bin/ip": "iproute2",
    "/sbin/sysctl": "procps",
    "/usr/bin/tar": "tar",
}
ADMINISTRATORS = "/usr/local/sbin:/usr/sbin:/sbin"


def missing() -> list[str]:
    """What keeps this machine from running a local cluster, or building images, that the harness cannot mend; empty where nothing does."""
    lacks = []
    if sys.platform != "linux":
        return ["Linux"]
    if os.geteuid() != 0:
        lacks.append("root")
    if shutil.which("go") is None:
        lacks.append("a Go toolchain")
    if _absent() and (os.geteuid() != 0 or shutil.which("apt-get") is None):
        lacks += [f"the package {name}" for name in _absent()]
    return lacks


def install() -> None:
    """Installs the packages that are absent, and says so in one line; without their services, which nobody asked for."""
    os.environ["PATH"] = f"{os.environ.get('PATH', '/usr/bin:/bin')}:{ADMINISTRATORS}"
    names = _absent()
    if not names:
        return
    announce(f"installing system packages for the test cluster: {' '.join(names)}")
    policy = Path("/usr/sbin/policy-rc.d")
    refuses = not policy.exists()
    if refuses:  # Debian asks this file whether a package's service may start
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        for words in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
            command = ["apt-get", "--quiet=2", *words]
            # apt gives up its root for a while, and /tmp is not everywhere a place that everybody may write to.
            environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "TMPDIR": "/var/tmp"}
            done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise HarnessFailure(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    finally:
        if refuses:
            policy.unlink()


def _absent() -> list[str]:
    return sorted({name for path, name in PACKAGES.items() if not Path(path).exists()})
