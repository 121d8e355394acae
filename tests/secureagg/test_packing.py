import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureagg import _packing


def reference(values, bits: int) -> bytes:
    """One big integer, least significant value first."""
    number = sum(int(v) << (bits * i) for i, v in enumerate(values))
    return number.to_bytes((len(values) * bits + 7) // 8, "little")


def residues(bits: int, length: int) -> np.ndarray:
    values = np.random.default_rng(bits).integers(0, 1 << bits, length, dtype=np.uint64)
    values[0] = (1 << bits) - 1
    return values.astype(_packing.word_dtype(bits))


@pytest.mark.parametrize("bits", range(1, 63))
@pytest.mark.parametrize("length", [1, 7, 64, 131])
def test_packing_agrees_with_one_big_integer(bits, length):
    words = residues(bits, length)
    packed = bytes(_packing.pack_bits(words, bits))
    assert packed == reference(words, bits)
    assert len(packed) == _packing.packed_bytes(length, bits)
    back = _packing.unpack_bits(packed, length, bits)
    assert back.dtype == _packing.word_dtype(bits)
    assert back.tolist() == words.tolist()


@pytest.mark.parametrize("bits", [5, 8, 13, 16, 26, 27, 32, 40, 61])
@pytest.mark.parametrize("more", [-1, 0, 1, 33])
def test_a_vector_of_several_blocks_is_packed_as_its_bits_stand(bits, more):
    words = residues(bits, 2 * _packing.BLOCK_WORDS + more)
    packed = _packing.pack_bits(words, bits)
    stored = words.astype("<u8").view(np.uint8).reshape(-1, 8)
    one_by_one = np.unpackbits(stored, axis=1, bitorder="little")[:, :bits]
    assert bytes(packed) == np.packbits(one_by_one.reshape(-1), bitorder="little").tobytes()
    assert np.array_equal(_packing.unpack_bits(packed, len(words), bits), words)


@pytest.mark.parametrize("bits", [1, 7, 8, 15, 16, 17, 31, 32, 33, 62])
def test_bits_above_the_modulus_are_left_out(bits):
    dtype = _packing.word_dtype(bits)
    words = np.random.default_rng(bits).integers(0, np.iinfo(dtype).max, 50, dtype=dtype)
    kept = words.copy()
    reduced = _packing.low_bits(words, bits)
    assert bytes(_packing.pack_bits(words, bits)) == reference(reduced, bits)
    assert np.array_equal(words, kept)


@pytest.mark.parametrize("bits", [7, 8, 13, 16, 27, 32, 40])
def test_words_may_lie_apart_and_backwards(bits):
    words = residues(bits, 131)
    for part in (words[::3], words[::-1]):
        assert bytes(_packing.pack_bits(part, bits)) == reference(part, bits)


@given(st.integers(1, 62), st.integers(1, 40))
def test_unpacking_refuses_set_padding_and_wrong_length(bits, length):
    packed = bytes(_packing.pack_bits(np.zeros(length, _packing.word_dtype(bits)), bits))
    with pytest.raises(ValueError, match="bytes"):
        _packing.unpack_bits(packed + b"\0", length, bits)
    with pytest.raises(ValueError, match="bytes"):
        _packing.unpack_bits(packed[:-1], length, bits)
    if length * bits % 8:
        with pytest.raises(ValueError, match="padding"):
            _packing.unpack_bits(packed[:-1] + bytes([packed[-1] | 128]), length, bits)
