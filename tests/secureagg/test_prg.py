import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

import secureagg
from secureagg import prg
from secureagg._packing import word_dtype

KEY, COUNTER = bytes(range(16)), b"\xff" * 15 + b"\xfe"


@pytest.mark.parametrize("bits", [1, 8, 16, 17, 20, 32, 33, 62])
@pytest.mark.parametrize("length", [1, 100, 600_000])
def test_expand_is_the_key_stream_in_little_endian_words(bits, length):
    size = 2 if bits <= 16 else 4 if bits <= 32 else 8
    if length > 100 and bits not in (16, 20, 62):
        length = 101
    stream = (
        Cipher(algorithms.AES(KEY), modes.CTR(COUNTER)).encryptor().update(bytes(size * length))
    )
    words = prg.expand(KEY, COUNTER, length, bits)
    for i in {0, length // 2, length - 1}:  # the long ones cross block boundaries
        word = int.from_bytes(stream[size * i : size * (i + 1)], "little")
        assert int(words[i]) == word % (1 << bits)
    assert np.array_equal(words, np.frombuffer(stream, f"<u{size}") & ((1 << bits) - 1))


def test_words_are_uniform_and_the_top_residue_occurs():
    counts = np.bincount(prg.expand(KEY, COUNTER, 1 << 18, 8), minlength=256)
    expected = (1 << 18) / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # 255 degrees of freedom: above 400 with probability below 1e-7; the key is fixed
    assert chi_square < 400
    assert counts[255] > 0


def test_accumulate_adds_and_subtracts_more_streams_than_a_batch():
    words = np.arange(1000, dtype=np.uint32)
    streams = [(bytes([i]) * 16, COUNTER, i % 3 != 0) for i in range(prg.BATCH + 10)]
    prg.accumulate(words, iter(streams))
    want = np.arange(1000, dtype=np.int64)
    for key, counter, add in streams:
        mask = prg.expand(key, counter, 1000, 32).astype(np.int64)
        want += mask if add else -mask
    assert words.tolist() == (want % (1 << 32)).tolist()


def test_byte_stream_depends_on_the_total_only():
    whole = secureagg.byte_stream(bytes(32))(2_000_000)
    draw = secureagg.byte_stream(bytes(32))
    cuts = [0, 1, 15, 16, 700_001, 3, 1_000_000]
    parts = b"".join(draw(size) for size in cuts)
    assert parts == whole[: sum(cuts)]
    assert isinstance(whole, bytes)
    assert secureagg.byte_stream(b"\x01" * 32)(64) != whole[:64]


def test_byte_stream_takes_32_bytes():
    with pytest.raises(ValueError, match="31"):
        secureagg.byte_stream(bytes(31))


@pytest.mark.parametrize("bits", [16, 32, 62])
@pytest.mark.parametrize("cores", [2, 3])
def test_threads_change_nothing(monkeypatch, bits, cores):
    """Each core seeks to its part of every stream; the counter wraps past ff..ff on the way."""
    length = 9001
    streams = [(bytes([i] * 16), b"\xff" * 15 + bytes([255 - 9 * i]), i % 2 == 0) for i in range(5)]
    plain = np.zeros(length, dtype=word_dtype(bits))
    prg.accumulate(plain, streams)
    monkeypatch.setattr(prg, "THREAD_BYTES", 100)
    monkeypatch.setattr(prg, "_cores", lambda: cores)
    threaded = np.zeros_like(plain)
    prg.accumulate(threaded, streams)
    assert threaded.tolist() == plain.tolist()
