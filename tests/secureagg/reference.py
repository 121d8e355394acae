"""A second implementation, written from docs/protocol.md; it imports nothing of secureagg.

Slow and plain: integers, bytes and lists, one function per line of the document. X25519 is the
ladder of RFC 7748 itself; AES, GCM and Ed25519 come from the `cryptography` package.
"""

import hashlib
import hmac
from fractions import Fraction
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

P25519, P31 = 2**255 - 19, 2**31 - 1


def le(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def label(tag, *fields) -> bytes:
    return b"secureagg/1" + bytes([tag]) + b"".join(le(len(f), 2) + f for f in fields)


def sha(data) -> bytes:
    return hashlib.sha256(data).digest()


def hkdf(secret, length, info) -> bytes:
    prk = hmac.digest(bytes(32), secret, "sha256")
    out, block = b"", b""
    while len(out) < length:
        block = hmac.digest(prk, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:length]


def x25519(private, point) -> bytes:
    """RFC 7748, section 5."""
    k = int.from_bytes(private, "little") & ~7 & (1 << 255) - 1 | 1 << 254
    x1 = int.from_bytes(point, "little") % 2**255
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a % P25519, b * b % P25519
        x3, z3 = (da + cb) ** 2 % P25519, x1 * (da - cb) ** 2 % P25519
        x2, z2 = aa * bb % P25519, (aa - bb) * (aa + 121665 * (aa - bb)) % P25519
    if swap:
        x2, z2 = x3, z3
    return le(x2 * pow(z2, P25519 - 2, P25519) % P25519, 32)


class Stream:
    """AES-128 of a 128-bit big-endian counter that wraps, block by block."""

    def __init__(self, material) -> None:
        self.cipher = Cipher(algorithms.AES(material[:16]), modes.ECB()).encryptor()  # noqa: S305 - one block at a time
        self.counter = int.from_bytes(material[16:], "big")
        self.left = b""

    def read(self, size) -> bytes:
        while len(self.left) < size:
            self.left += self.cipher.update(self.counter.to_bytes(16, "big"))
            self.counter = (self.counter + 1) % 2**128
        found, self.left = self.left[:size], self.left[size:]
        return found


class Reference:
    """A round from the parameters, secrets, inputs and dropouts of a vector."""

    def __init__(self, vector) -> None:
        self.p: dict[str, Any] = vector["params"]
        self.malicious = self.p["server"] == "malicious"
        self.roster = {int(i): bytes.fromhex(k) for i, k in vector["roster"].items()}
        self.ids = sorted(self.roster)
        self.secrets = {int(i): bytes.fromhex(s) for i, s in vector["session_secrets"].items()}
        self.seeds = {int(i): bytes.fromhex(s) for i, s in vector["identity_seeds"].items()}
        self.inputs = {int(i): x for i, x in vector["inputs"].items()}
        listed = b"".join(le(i, 4) + le(len(self.roster[i]), 2) + self.roster[i] for i in self.ids)
        self.ctx: bytes = sha(label(1, sha(self.params_bytes()), sha(listed)))
        n, k = self.p["num_clients"], self.p["degree"]
        seed = bytes.fromhex(self.p["graph_seed"])
        if k == n - 1:
            self.near = {i: [j for j in self.ids if j != i] for i in self.ids}
            self.witnesses = self.ids
        else:
            ring = self.shuffled(seed, 9)
            steps = [s for s in range(-k // 2, k // 2 + 1) if s]
            self.near = {i: sorted(ring[(at + s) % n] for s in steps) for at, i in enumerate(ring)}
            self.witnesses = sorted(self.shuffled(seed, 13)[:k])
        self.keys = {i: self.make_keys(i) for i in self.ids}

    def params_bytes(self) -> bytes:
        p = self.p
        out: bytes = b"\x01" + le(p["num_clients"], 4) + le(len(p["segments"]), 2)
        for name, length, bits in p["segments"]:
            out += le(len(name.encode()), 2) + name.encode() + le(length, 4) + bytes([bits])
        out += b"".join(le(p[f], 4) for f in ("degree", "threshold", "min_survivors"))
        for f in ("corrupt", "dropout"):
            rate = Fraction(p[f])
            text = f"{rate.numerator}/{rate.denominator}".encode()
            out += le(len(text), 2) + text
        server = p["server"].encode()
        out += le(p["rounds"], 4) + le(len(server), 2) + server
        out += le(p["security_bits"], 2) + le(p["correctness_bits"], 2)
        session, seed = bytes.fromhex(p["session_id"]), bytes.fromhex(p["graph_seed"])
        out += le(len(session), 2) + session
        out += le(p["round_index"], 8) + le(p["attempt"], 8) + le(len(seed), 2) + seed
        return out

    def shuffled(self, seed, tag) -> list[int]:
        stream = Stream(hkdf(seed, 32, label(tag)))
        drawn = [int.from_bytes(stream.read(16), "little") for _ in self.ids]
        return [i for _, i in sorted(zip(drawn, self.ids, strict=True))]

    def make_keys(self, i) -> dict[str, Any]:
        out = hkdf(self.secrets[i], 96, label(2, self.ctx, le(i, 4)))
        enc, mask, seed = out[:32], out[32:64], out[64:]
        nine = le(9, 32)
        found: dict[str, bytes] = {"enc": enc, "mask": mask, "seed": seed}
        found |= {"enc_public": x25519(enc, nine), "mask_public": x25519(mask, nine)}
        bundle = found["enc_public"] + found["mask_public"]
        bundle += sha(label(4, self.ctx, le(i, 4), seed))
        if self.malicious:
            data = label(11, b"\x01", self.ctx, le(i, 4), bundle)
            bundle += Ed25519PrivateKey.from_private_bytes(self.seeds[i]).sign(data)
        return found | {"bundle": bundle}

    def message(self, kind: int, i: int, body: bytes) -> bytes:
        return bytes([1, kind]) + le(i, 4) + self.ctx + body

    def flags(self, members: set[int]) -> bytes:
        bits = sum(1 << at for at, i in enumerate(self.ids) if i in members)
        return le(bits, (len(self.ids) + 7) // 8)

    def core(self, alive: set[int]) -> set[int]:
        t = self.p["threshold"]
        while gone := {i for i in alive if len(alive & set(self.near[i])) < t}:
            alive = alive - gone
        return alive

    def deal(self, i, holders) -> dict[int, list[bytes]]:
        """Shares of the mask key and of the seed, by holder."""
        stream = Stream(hkdf(self.secrets[i], 32, label(3, self.ctx, le(i, 4))))
        secrets = [
            int.from_bytes(self.keys[i][name], "little") >> 30 * limb & 2**30 - 1
            for name in ("mask", "seed")
            for limb in range(9)
        ]
        t = self.p["threshold"]
        words = [int.from_bytes(stream.read(4), "little") & P31 for _ in range((t - 1) * 18)]
        while redo := [at for at, word in enumerate(words) if word == P31]:
            for at in redo:
                words[at] = int.from_bytes(stream.read(4), "little") & P31
        rows = [words[r * 18 : r * 18 + 18] for r in range(t - 1)]  # highest power first
        found = {}
        for v in holders:
            x = self.ids.index(v) + 1
            values = [
                (sum(row[c] * pow(x, t - 1 - r, P31) for r, row in enumerate(rows)) + secret) % P31
                for c, secret in enumerate(secrets)
            ]
            limbs = [le(value, 4) for value in values]
            found[v] = [b"".join(limbs[:9]), b"".join(limbs[9:])]
        return found

    def sealed(self, i, v, pair) -> Any:
        low, high = sorted((i, v))
        agreed = x25519(self.keys[i]["enc"], self.keys[v]["enc_public"])
        publics = [self.keys[c]["enc_public"] for c in (low, high)]
        out = hkdf(agreed, 32, label(5, self.ctx, le(low, 4), le(high, 4), *publics))
        key = out[:16] if i < v else out[16:]
        plain = b"\x01" + pair[0] + b"\x02" + pair[1]
        box = AESGCM(key).encrypt(bytes(12), plain, label(6, self.ctx, le(i, 4), le(v, 4)))
        fields = (self.ctx, le(i, 4), le(v, 4))
        return box + b"".join(
            sha(label(12, *fields, bytes([kind]), pair[kind - 1])) for kind in (1, 2)
        )

    def mask_words(self, secret, info) -> list[list[int]]:
        found = []
        for at, (_, length, bits) in enumerate(self.p["segments"]):
            stream, size = Stream(hkdf(secret, 32, info + le(at, 2))), 2 if bits <= 16 else 4
            size = 8 if bits > 32 else size
            words = [int.from_bytes(stream.read(size), "little") for _ in range(length)]
            found.append([word % 2**bits for word in words])
        return found

    def masked(self, i, neighbours) -> bytes:
        total = [list(self.inputs[i][name]) for name, _, _ in self.p["segments"]]
        masks = [(1, self.mask_words(self.keys[i]["seed"], label(8, self.ctx, le(i, 4))))]
        for v in neighbours:
            low, high = sorted((i, v))
            publics = [self.keys[c]["mask_public"] for c in (low, high)]
            info = label(7, self.ctx, le(low, 4), le(high, 4), *publics)
            agreed = x25519(self.keys[i]["mask"], self.keys[v]["mask_public"])
            masks.append((1 if i < v else -1, self.mask_words(agreed, info)))
        body = b""
        for at, (_, length, bits) in enumerate(self.p["segments"]):
            column = [
                (x + sum(sign * mask[at][j] for sign, mask in masks)) % 2**bits
                for j, x in enumerate(total[at])
            ]
            packed = sum(word << bits * j for j, word in enumerate(column))
            body += le(packed, (length * bits + 7) // 8)
        return body

    def play(self, dropouts) -> list[tuple[dict[int, bytes], dict[int, bytes]]]:
        """Every stage's messages: (clients', server's)."""
        gone: set[int] = set()
        leaving = {stage: set(dropouts.get(stage, ())) for stage in dropouts}

        def left(stage, members) -> set[int]:
            nonlocal gone
            gone = gone | leaving.get(stage, set())
            return set(members) - gone

        stages = []
        asked = left("advertise_keys", self.ids)
        up = {i: self.message(1, i, self.keys[i]["bundle"]) for i in sorted(asked)}
        advertised = self.core(asked)
        down = {
            i: self.message(129, i, b"".join(
                le(v, 4) + self.keys[v]["bundle"] for v in self.near[i] if v in advertised))
            for i in sorted(advertised)
        }  # fmt: skip
        stages.append((up, down))
        answered = left("share_keys", advertised)
        dealt = {i: self.deal(i, [v for v in self.near[i] if v in advertised]) for i in answered}
        boxes = {i: {v: self.sealed(i, v, pair) for v, pair in dealt[i].items()} for i in answered}
        up = {
            i: self.message(2, i, b"".join(le(v, 4) + box for v, box in boxes[i].items()))
            for i in sorted(answered)
        }
        shared = self.core(answered)
        down = {
            i: self.message(130, i, self.flags(shared) + b"".join(
                le(v, 4) + boxes[v][i] for v in self.near[i] if v in shared))
            for i in sorted(shared)
        }  # fmt: skip
        stages.append((up, down))
        survivors = left("mask_input", shared)
        up = {
            i: self.message(3, i, self.masked(i, [v for v in self.near[i] if v in shared]))
            for i in sorted(survivors)
        }
        bits = sum(
            (2 if i in survivors else 1) << 2 * at for at, i in enumerate(self.ids) if i in shared
        )
        down = {
            i: self.message(131, i, le(bits, (len(self.ids) + 3) // 4)) for i in sorted(survivors)
        }
        stages.append((up, down))
        if self.malicious:
            stages.append(self.attest(left, shared, survivors))
            informed = set(stages[-1][1])
        else:
            informed = survivors
        revealed = left("unmask", informed)
        stages.append(({i: self.reveal(i, dealt, shared, survivors) for i in sorted(revealed)}, {}))
        self.survivors = sorted(survivors)
        return stages

    def attest(self, left, shared, survivors) -> tuple[dict[int, bytes], dict[int, bytes]]:
        signing = left("check_consistency", survivors) & set(self.witnesses)
        data = label(14, self.ctx, sha(self.flags(shared)), sha(self.flags(survivors)))
        signed = {
            i: Ed25519PrivateKey.from_private_bytes(self.seeds[i]).sign(data)
            for i in sorted(signing)
        }
        up = {i: self.message(4, i, s) for i, s in signed.items()}
        quorum = b"".join(le(i, 4) + signed[i] for i in sorted(signed)[: self.p["threshold"]])
        informed = survivors - (set(self.witnesses) - signing)
        return up, {i: self.message(132, i, quorum) for i in sorted(informed)}

    def reveal(self, i, dealt, shared, survivors) -> bytes:
        dealers = [v for v in self.near[i] if v in shared]
        flags = le(2 ** len(dealers) - 1, (len(dealers) + 7) // 8)
        rows = b"".join(dealt[v][i][v in survivors] for v in dealers)
        return self.message(5, i, flags + rows)

    def sums(self) -> dict[str, list[int]]:
        return {
            name: [sum(self.inputs[i][name][j] for i in self.survivors) % 2**bits
                   for j in range(length)]
            for name, length, bits in self.p["segments"]
        }  # fmt: skip
