"""The control plane, as plain processes on the host: etcd, API server, controller manager, scheduler, and CoreDNS for the cluster's names."""

from __future__ import annotations

import signal
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from tests.cluster.harness import processes
from tests.cluster.harness.binaries import program
from tests.cluster.harness.certificates import Authority
from tests.cluster.harness.network import API_SERVICE, HOST, NODES, SERVICES
from tests.cluster.harness.state import State

API = f"https://{HOST}:6443"
ETCD = "http://127.0.0.1:42379"
ETCD_PEERS = "http://127.0.0.1:42380"
DNS_READY = f"http://{HOST}:8181/ready"

COREFILE = """\
.:53 {{
    bind {host}
    errors
    ready {host}:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig} modelyard
        pods insecure
        ttl 1
        fallthrough in-addr.arpa ip6.arpa
    }}
    forward . /etc/resolv.conf
}}
"""


def make_certificates(state: State) -> Authority:
    """Certificates and kubeconfigs of everything in the cluster; the administrator's waits in the certificates' folder until the cluster is up."""
    authority = Authority(state.certificates)
    names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost")
    server = tuple(f"IP:{address}" for address in (HOST, API_SERVICE, "127.0.0.1")) + tuple(f"DNS:{name}" for name in names)
    authority.sign("kube-apiserver", "kube-apiserver", addresses=server)
    authority.sign("apiserver-kubelet-client", "kube-apiserver-kubelet-client", group="system:masters")
    authority.sign("front-proxy-client", "front-proxy-client")
    authority.sign("service-accounts", "service-accounts")  # its key signs their tokens
    users = ("kube-controller-manager", "kube-scheduler", "kube-proxy")
    for name in users:
        authority.sign(name, f"system:{name}")
    authority.sign("admin", "admin", group="system:masters")
    authority.sign("coredns", "coredns", group="system:masters")  # there is no built-in role for it, and this cluster keeps no secret
    for node in NODES:
        authority.sign(node, f"system:node:{node}", group="system:nodes")
    for name in (*users, "admin", "coredns", *NODES):
        authority.kubeconfig(name, API, kubeconfig(state, name))
    return authority


def kubeconfig(state: State, name: str) -> Path:
    """The kubeconfig of a member of the cluster."""
    return state.certificates / f"{name}.kubeconfig"


def start(state: State) -> None:
    """Starts everything; returns when the API server answers (the others need no waiting for: their work shows)."""
    start_etcd(state)
    start_api_server(state)
    common = ("--leader-elect=false", "--secure-port=0", "--profiling=false")
    manager = [
        f"--kubeconfig={kubeconfig(state, 'kube-controller-manager')}",
        f"--service-account-private-key-file={state.certificates}/service-accounts.key",
        f"--root-ca-file={state.certificates}/ca.crt",
        "--use-service-account-credentials=true",
        "--pvclaimbinder-sync-period=1s",  # a claim waits for the next turn where its volume came a moment later: by default 15 s
        *common,
    ]
    processes.start(state, "kube-controller-manager", [program("kube-controller-manager"), *manager])
    scheduler = [f"--kubeconfig={kubeconfig(state, 'kube-scheduler')}", *common]
    processes.start(state, "kube-scheduler", [program("kube-scheduler"), *scheduler])
    corefile = state.root / "Corefile"
    corefile.write_text(COREFILE.format(host=HOST, kubeconfig=kubeconfig(state, "coredns")))
    processes.start(state, "coredns", [program("coredns"), "-conf", corefile])


def wait_for_dns(state: State) -> None:
    """Waits until the cluster's DNS has read the cluster's Services."""
    processes.wait(state, "the cluster's DNS is ready", lambda: _answers(DNS_READY), process="coredns", within=30)


def start_etcd(state: State) -> None:
    """Starts etcd: it never waits for the disk, since what it holds ends with the cluster."""
    clients = (f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}")
    peers = (f"--listen-peer-urls={ETCD_PEERS}", f"--initial-advertise-peer-urls={ETCD_PEERS}", f"--initial-cluster=default={ETCD_PEERS}")
    processes.start(state, "etcd", ["etcd", f"--data-dir={state.root}/etcd", "--unsafe-no-fsync", *clients, *peers])
    processes.wait(state, "etcd is healthy", lambda: _answers(f"{ETCD}/health"), process="etcd", within=20)


def start_api_server(state: State) -> None:
    """Starts the API server and waits until it is ready."""
    certificates = state.certificates
    command = [
        f"--etcd-servers={ETCD}",
        f"--advertise-address={HOST}",
        f"--bind-address={HOST}",
        "--secure-port=6443",
        f"--tls-cert-file={certificates}/kube-apiserver.crt",
        f"--tls-private-key-file={certificates}/kube-apiserver.key",
        f"--client-ca-file={certificates}/ca.crt",
        f"--kubelet-client-certificate={certificates}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={certificates}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP,Hostname",  # a node's name is in no DNS
        f"--requestheader-client-ca-file={certificates}/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={certificates}/front-proxy-client.crt",
        f"--proxy-client-key-file={certificates}/front-proxy-client.key",
        "--enable-aggregator-routing=true",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={certificates}/service-accounts.crt",
        f"--service-account-signing-key-file={certificates}/service-accounts.key",
        f"--service-cluster-ip-range={SERVICES}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--profiling=false",
    ]
    processes.start(state, "kube-apiserver", [program("kube-apiserver"), *command])
    processes.wait(state, "the API server is ready", lambda: api_answers(state), process="kube-apiserver", within=60)


def stop_api_server(state: State) -> None:
    """Kills the API server at once, as a failing machine would."""
    processes.stop(state, "kube-apiserver", how=signal.SIGKILL)


def api_answers(state: State) -> bool:
    """Whether the API server says that it is ready."""
    certificates = state.certificates
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
    return _answers(f"{API}/readyz", context)


def _answers(url: str, context: ssl.SSLContext | None = None) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
