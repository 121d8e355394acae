import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureagg import _codec


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_flags_go_there_and_back(flags):
    packed = _codec.pack_flags(np.array(flags))
    assert _codec.unpack_flags(packed, len(flags)).tolist() == flags
    with pytest.raises(ValueError, match="bytes"):
        _codec.unpack_flags(packed + b"\0", len(flags))
    if len(flags) % 8:
        with pytest.raises(ValueError, match="padding"):
            _codec.unpack_flags(packed[:-1] + bytes([packed[-1] | 128]), len(flags))
