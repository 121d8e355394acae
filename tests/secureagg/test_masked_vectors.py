"""Bug detectors: statistics of masked vectors.

That masked vectors look uniform proves nothing about secrecy, which docs/protocol.md argues. They
find masks that are missing, constant, shared between clients or short of their modulus.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import secureagg
from secureagg import masking, messages

BITS, LENGTH, CELLS = 17, 8192, 64


def masks_of(play: Any) -> NDArray[np.int64]:
    """int64[clients, LENGTH]: what every client added to its input, mod 2^BITS."""
    found = []
    for client_id, message in play.answers().items():
        (words,) = masking.unpack_vector(play.params, message[messages.HEADER_BYTES :])
        found.append((words.astype(np.int64) - play.inputs[client_id].astype(np.int64)) % 2**BITS)
    return np.array(found)


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_bug_detector_masks_look_uniform_and_unrelated(make_play, server):
    """Chi-square of the upper and the lower bits, and correlations between clients.

    The bytes are seeded, so the outcome is fixed; limits are about six standard deviations.
    """
    segment = secureagg.Segment("x", LENGTH, BITS)
    masks = masks_of(make_play(2, segments=(segment,), server=server))
    assert len(masks) == 6
    want = LENGTH / CELLS
    for row in masks:
        for cells in (row >> (BITS - 6), row % CELLS):
            counts = np.bincount(cells, minlength=CELLS)
            statistic = float(((counts - want) ** 2 / want).sum())
            assert abs(statistic - (CELLS - 1)) < 6 * (2 * (CELLS - 1)) ** 0.5
    related = np.corrcoef(masks) - np.eye(len(masks))
    assert np.abs(related).max() < 6 / LENGTH**0.5
