import pytest

from secureagg import primitives
from secureagg.primitives import Usage


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


@pytest.mark.parametrize(
    ("scalar", "point", "result"),
    [  # RFC 7748, section 5.2
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ],
)
def test_x25519_known_answers(scalar, point, result):
    assert primitives.agreement(unhex(scalar))(unhex(point)) == unhex(result)


def test_x25519_iterated_thousand_times():  # RFC 7748, section 5.2
    k = u = (9).to_bytes(32, "little")
    for i in range(1000):
        k, u = primitives.agreement(k)(u), k
        if i == 0:
            want = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
            assert k == unhex(want)
    assert k == unhex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")


def test_x25519_key_agreement():  # RFC 7748, section 6.1
    alice = unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_public = unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    bob_public = unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    shared = unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert primitives.public_key(alice) == alice_public
    assert primitives.public_key(bob) == bob_public
    assert primitives.agreement(alice)(bob_public) == shared
    assert primitives.agreement(bob)(alice_public) == shared


@pytest.mark.parametrize(
    ("ikm", "salt", "info", "length", "okm"),
    [  # RFC 5869, appendices A.1 to A.3
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x00, 0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            82,
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb"
            "41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf_known_answers(ikm, salt, info, length, okm):
    found = primitives.hkdf(unhex(ikm), length, unhex(info), salt=unhex(salt) or None)
    assert found == unhex(okm)


def test_aes_ctr_known_answer():  # NIST SP 800-38A, F.5.1
    stream = primitives.key_stream(
        unhex("2b7e151628aed2a6abf7158809cf4f3c"), unhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    )
    plaintext = unhex(
        "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710"
    )
    assert stream.update(plaintext) == unhex(
        "874d6191b620e3261bef6864990db6ce 9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab 1e031dda2fbe03d1792170a0f3009cee"
    )


def test_small_order_keys_are_refused_and_would_agree_on_zero():
    private = bytes(range(32))
    for point in primitives._SMALL_ORDER:
        encoded = point.to_bytes(32, "little")
        assert not primitives.is_proper_public_key(encoded)
        with pytest.raises(ValueError, match=r".*"):
            primitives.agreement(private)(encoded)


def test_public_keys_must_be_canonical():
    prime = (1 << 255) - 19
    good = primitives.public_key(bytes(range(32)))
    assert primitives.is_proper_public_key(good)
    assert primitives.is_proper_public_key((9).to_bytes(32, "little"))
    assert not primitives.is_proper_public_key((prime + 9).to_bytes(32, "little"))
    assert not primitives.is_proper_public_key(good[:31] + bytes([good[31] | 128]))
    assert not primitives.is_proper_public_key(good[:31])


def test_labels_have_one_reading():
    labels = [
        primitives.label(Usage.BOX_KEY, b"ab", b"c"),
        primitives.label(Usage.BOX_KEY, b"a", b"bc"),
        primitives.label(Usage.BOX_KEY, b"abc"),
        primitives.label(Usage.BOX_DATA, b"ab", b"c"),
    ]
    assert len(set(labels)) == len(labels)


def test_box_opens_only_with_its_key_and_data():
    box = primitives.seal(b"k" * 16, b"secret", b"data")
    assert len(box) == 6 + primitives.BOX_OVERHEAD
    assert primitives.open_box(b"k" * 16, box, b"data") == b"secret"
    assert primitives.open_box(b"l" * 16, box, b"data") is None
    assert primitives.open_box(b"k" * 16, box, b"other") is None
    assert primitives.open_box(b"k" * 16, box[:-1] + bytes([box[-1] ^ 1]), b"data") is None


ORDER_8 = (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)
PRIME = 2**255 - 19


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize(
    "y", [0, 1, PRIME - 1, *(int.from_bytes(bytes.fromhex(h), "little") for h in ORDER_8)]
)
def test_identities_of_small_order_or_not_canonical_are_refused(y, sign):
    for value in {y, y + PRIME}:
        if value < 2**255:
            key = (value | sign << 255).to_bytes(32, "little")
            assert not primitives.is_identity(key)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 64])
def test_identities_have_32_bytes(size):
    assert not primitives.is_identity((primitives.IdentityKey(bytes(32)).public_key * 2)[:size])


def test_honest_identities_are_accepted():
    assert all(
        primitives.is_identity(primitives.IdentityKey.generate().public_key) for _ in range(20)
    )


def test_order_eight_points_double_to_y_zero():
    """2P has y = (y^2 + x^2) / (1 - d x^2 y^2) ... = 0 exactly where x^2 = -y^2 on the curve."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    for encoded in ORDER_8:
        y = int.from_bytes(bytes.fromhex(encoded), "little")
        x2 = (y * y - 1) * pow(d * y * y + 1, -1, PRIME) % PRIME
        assert (x2 + y * y) % PRIME == 0


def test_fingerprints_of_long_messages_exist(monkeypatch):
    short = primitives.fingerprint(b"12345678")
    monkeypatch.setattr(primitives, "_LONGEST_GMAC", 4)
    long = primitives.fingerprint(b"12345678")
    assert len(short) == len(long) == primitives.FINGERPRINT_BYTES
    assert long != primitives.fingerprint(b"12345679")
