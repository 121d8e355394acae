import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureagg import _codec


def reference(values, bits: int) -> bytes:
    """One big integer, least significant value first."""
    number = sum(int(v) << (bits * i) for i, v in enumerate(values))
    return number.to_bytes((len(values) * bits + 7) // 8, "little")


@pytest.mark.parametrize("bits", range(1, 63))
@pytest.mark.parametrize("length", [1, 7, 64, 131])
def test_packing_agrees_with_one_big_integer(bits, length):
    values = np.random.default_rng(bits).integers(0, 1 << bits, length, dtype=np.uint64)
    values[0] = (1 << bits) - 1
    words = values.astype(_codec.word_dtype(bits))
    packed = _codec.pack_bits(words, bits)
    assert packed == reference(values, bits)
    assert len(packed) == _codec.packed_bytes(length, bits)
    back = _codec.unpack_bits(packed, length, bits)
    assert back.dtype == _codec.word_dtype(bits)
    assert back.tolist() == values.tolist()


@given(st.integers(1, 62), st.integers(1, 40))
def test_unpacking_refuses_set_padding_and_wrong_length(bits, length):
    packed = _codec.pack_bits(np.zeros(length, _codec.word_dtype(bits)), bits)
    with pytest.raises(ValueError, match="bytes"):
        _codec.unpack_bits(packed + b"\0", length, bits)
    with pytest.raises(ValueError, match="bytes"):
        _codec.unpack_bits(packed[:-1], length, bits)
    if length * bits % 8:
        with pytest.raises(ValueError, match="padding"):
            _codec.unpack_bits(packed[:-1] + bytes([packed[-1] | 128]), length, bits)


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_flags_go_there_and_back(flags):
    packed = _codec.pack_flags(np.array(flags))
    assert _codec.unpack_flags(packed, len(flags)).tolist() == flags
    with pytest.raises(ValueError, match="bytes"):
        _codec.unpack_flags(packed + b"\0", len(flags))
    if len(flags) % 8:
        with pytest.raises(ValueError, match="padding"):
            _codec.unpack_flags(packed[:-1] + bytes([packed[-1] | 128]), len(flags))
