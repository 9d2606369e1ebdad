"""One certificate authority for the cluster, a certificate for each of its members, and the kubeconfigs made from them; valid for a year."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.cluster.harness.processes import run

# Without a file of its own openssl reads the system's, and adds what that says.
OPENSSL_CONFIGURATION = "[req]\ndistinguished_name = name\n[name]\n"


class Authority:
    """Signs certificates into one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        (folder / "openssl.cnf").write_text(OPENSSL_CONFIGURATION)
        self._make("ca", "/CN=modelyard-test-ca", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")

    @property
    def certificate(self) -> Path:
        """The authority's own certificate."""
        return self.folder / "ca.crt"

    def key(self, name: str) -> Path:
        """The private key that belongs to a certificate."""
        return self.folder / f"{name}.key"

    def crt(self, name: str) -> Path:
        """The certificate of that name."""
        return self.folder / f"{name}.crt"

    def sign(self, name: str, user: str, *, group: str | None = None, addresses: tuple[str, ...] = ()) -> None:
        """A certificate of the user (in Kubernetes' eyes) `user` of `group`, and of a server at `addresses` (`IP:…`, `DNS:…`) where given."""
        usage = "serverAuth,clientAuth" if addresses else "clientAuth"
        names = (f"subjectAltName={','.join(addresses)}",) if addresses else ()
        subject = (f"/O={group}" if group else "") + f"/CN={user}"
        self._make(name, subject, f"extendedKeyUsage={usage}", "keyUsage=digitalSignature", *names, issuer="ca")

    def kubeconfig(self, name: str, server: str, path: Path) -> None:
        """Writes a kubeconfig that holds everything it needs, so it can be copied; its one context is `modelyard`."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "modelyard", "cluster": {"server": server, "certificate-authority-data": _base64(self.certificate)}}],
            "users": [{"name": name, "user": {"client-certificate-data": _base64(self.crt(name)), "client-key-data": _base64(self.key(name))}}],
            "contexts": [{"name": "modelyard", "context": {"cluster": "modelyard", "user": name}}],
            "current-context": "modelyard",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(document, indent=1))

    def _make(self, name: str, subject: str, *extensions: str, issuer: str | None = None) -> None:
        signed_by = ("-CA", self.crt(issuer), "-CAkey", self.key(issuer)) if issuer else ()
        options = [option for extension in extensions for option in ("-addext", extension)]
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", self.key(name))
        config = ("-config", self.folder / "openssl.cnf")
        run("openssl", "req", "-x509", *config, *key, "-days", "365", "-subj", subject, *options, *signed_by, "-out", self.crt(name))


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
