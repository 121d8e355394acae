"""Certificates and node keys for tests: `python -m tests.deploy.certificates DIR --host NAME`.

Makes a certificate authority of its own that nobody else trusts, a server certificate by it, and
P-384 keys of SuperNodes. In earnest, take the server's certificate from an authority that the
organisations trust, and let every node make its own key: docs/deployment.md.
"""

import argparse
import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS = datetime.timedelta(days=7)


def make_certificates(folder: Path, hosts: Sequence[str]) -> None:
    """Writes ca.pem, server.pem and server.key (mode 0600) for names or addresses of one server."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Test authority")
    ca = _certificate(issuer, issuer, authority.public_key())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    key = ec.generate_private_key(ec.SECP256R1())
    server = _certificate(_name(hosts[0]), issuer, key.public_key())
    server = server.add_extension(
        x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
    )
    for name, builder in (("ca.pem", ca), ("server.pem", server)):
        signed = builder.sign(authority, hashes.SHA256())
        (folder / name).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    _write_secret(
        folder / "server.key",
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def make_node_key(path: Path) -> None:
    """Writes a SuperNode's key, mode 0600, and beside it the public one to be registered."""
    key = ec.generate_private_key(ec.SECP384R1())
    _write_secret(
        path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ),
    )
    path.with_name(f"{path.name}.pub").write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _DAYS)
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_secret(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description="Certificates and node keys for tests.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", action="append", required=True, help="name or address")
    parser.add_argument("--nodes", type=int, default=0, help="how many node keys")
    asked = parser.parse_args()
    make_certificates(asked.folder, [*asked.host, "127.0.0.1"])  # where the SuperLink calls itself
    for i in range(asked.nodes):
        make_node_key(asked.folder / f"node-{i}.key")


if __name__ == "__main__":
    main()
