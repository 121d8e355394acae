"""A round spread over N processes: the same sum, and only partial sums travel."""

import functools
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import masking
from secureagg.adder import Adder
from secureagg.context import open_round
from secureagg.server_session import ServerSession
from tests.secureagg.test_round import STAGES

SEGMENTS = {"update": (40, 20), "weight": (1, 9)}


def params_of(server: str, n: int = 9) -> secureagg.Params:
    return secureagg.Params(
        num_clients=n, segments=tuple(secureagg.Segment(k, *v) for k, v in SEGMENTS.items()),
        degree=n - 1, threshold=n // 2 + 1, min_survivors=n - 3, corrupt=0, dropout="1/3",
        rounds=1, server=server, security_bits=0, correctness_bits=0, session_id=b"s",
        round_index=0, attempt=0,
    )  # fmt: skip


def inputs_of(ids: list[int]) -> dict[int, dict[str, Any]]:
    rng = np.random.default_rng(3)
    return {
        i: {k: rng.integers(0, 1 << bits, length) for k, (length, bits) in SEGMENTS.items()}
        for i in ids
    }


class Processes:
    """N threads in step, as N processes would be; records what travels."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent: list[list[bytes]] = [[] for _ in range(size)]
        self._slots: list[bytes] = [b""] * size
        self._barrier = threading.Barrier(size, timeout=20)

    def exchange(self, index: int, payload: bytes) -> list[bytes]:
        self.sent[index].append(payload)
        self._slots[index] = payload
        self._barrier.wait()
        got = list(self._slots) if index == 0 else [self._slots[0], *[b""] * (self.size - 1)]
        self._barrier.wait()
        return got

    def run(self, call: Callable[[int], Any]) -> list[Any]:
        found: list[Any] = [None] * self.size

        def body(index: int) -> None:
            try:
                found[index] = call(index)
            except secureagg.SecureAggError as error:
                found[index] = error

        threads = [threading.Thread(target=body, args=(i,)) for i in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def spread(
    params: secureagg.Params,
    ids: list[int],
    dropouts: dict[str, list[int]],
    size: int,
    inputs: dict[int, dict[str, Any]] | None = None,
    seen: list[tuple[int, ...]] | None = None,
) -> tuple[list[Any], Processes]:
    processes, values = Processes(size), inputs or inputs_of(ids)

    def call(index: int) -> Any:
        mine = [i for i in ids if i % size == index]
        return secureagg.spread_round(
            params, ids, mine,
            lambda there: [(i, values[i]) for i in reversed(there)],
            dropouts=dropouts, index=index,
            exchange=lambda payload: processes.exchange(index, payload),
            rand_of=lambda i: secureagg.byte_stream(bytes([i]) * 32),
            before_unmasking=lambda survivors: None if seen is None else seen.append(survivors),
        )  # fmt: skip

    return processes.run(call), processes


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_sum_is_that_of_one_process(server, size):
    ids = [0, 1, 2, 5, 7, 8, 9, 11, 30]
    params, inputs = params_of(server), inputs_of([0, 1, 2, 5, 7, 8, 9, 11, 30])
    dropouts = {"share_keys": [7], "mask_input": [30], "unmask": [2]}
    whole = secureagg.run_round(params, inputs, dropouts=dropouts)
    seen: list[tuple[int, ...]] = []
    (result, *rest), _ = spread(params, ids, dropouts, size, inputs, seen)
    assert rest == [None] * (size - 1)
    assert result.survivors == whole.survivors == seen[0]
    assert len(seen) == 1
    for name, total in whole.sums.items():
        assert (result.sums[name] == total).all()
    assert set(result.quorum) <= set(whole.survivors)
    assert len(result.quorum) == len(whole.quorum)
    assert result.cost.upload_bytes == whole.cost.upload_bytes
    assert result.cost.download_bytes == whole.cost.download_bytes
    assert set(result.cost.client_seconds) == set(params.stages)


def test_one_partial_sum_travels_whatever_the_number_of_clients():
    at_mask_input = []
    for n in (6, 18):
        _, processes = spread(params_of("semi_honest", n), list(range(n)), {}, 2)
        at_mask_input.append(max(len(data) for data in processes.sent[1][4:5]))
    vector = masking.vector_bytes(params_of("semi_honest"))
    few, many = at_mask_input
    marks = 4 + 8 + 16
    assert few == 32 + 4 + 3 * marks + vector  # ctx, number, marks, sum
    assert many == 32 + 4 + 9 * marks + vector


@pytest.mark.parametrize("stage", STAGES[:3])
def test_an_abort_ends_the_round_in_every_process(stage):
    ids = list(range(9))
    seen: list[tuple[int, ...]] = []
    found, _ = spread(params_of("malicious"), ids, {stage: ids[:5]}, 2, seen=seen)
    assert isinstance(found[0], secureagg.TooFewClientsError)
    assert found[1] is None
    assert seen == []


def given_anyway(sent: list[Any], there: tuple[int, ...]) -> list[Any]:
    del there
    return sent


def test_inputs_must_be_those_of_the_clients_that_mask():
    ids, values = list(range(9)), inputs_of(list(range(9)))
    for given in ([0, 1, 2], [*ids, 10]):
        sent = [(i, values.get(i, values[0])) for i in given]
        with pytest.raises(secureagg.MisuseError, match="input of"):
            secureagg.spread_round(
                params_of("semi_honest"), ids, ids, functools.partial(given_anyway, sent),
                dropouts={}, index=0, exchange=lambda payload: [payload],
                rand_of=lambda i: secureagg.byte_stream(bytes([i]) * 32),
                before_unmasking=lambda survivors: None,
            )  # fmt: skip
    with pytest.raises(secureagg.MisuseError, match="not invited"):
        secureagg.spread_round(
            params_of("semi_honest"), ids, [77], lambda there: [], dropouts={}, index=0,
            exchange=lambda payload: [payload], rand_of=lambda i: bytes,
            before_unmasking=lambda survivors: None,
        )  # fmt: skip


def masked(
    params: secureagg.Params, ids: list[int], late: Collection[int] = ()
) -> tuple[Any, ServerSession, dict[int, Any]]:
    """Sessions run up to mask_input: the server before it, and every client's vector.

    The shares of those that are late do not arrive.
    """
    roster, inputs = dict.fromkeys(ids, b""), inputs_of(ids)
    clients = {
        i: secureagg.ClientSession(params, i, None, roster, inputs[i], once=secureagg.MemoryOnce())
        for i in ids
    }
    round_ = open_round(params, roster)
    server = ServerSession.in_round(round_)
    outbound = dict.fromkeys(ids, b"")
    for _ in range(2):
        for i, message in outbound.items():
            sent = clients[i].receive(message) if message else clients[i].start()
            if not (message and i in late):
                server.receive(i, sent or b"")
        outbound = server.close_stage()
    return round_, server, {i: clients[i].receive(message) for i, message in outbound.items()}


def test_an_adder_refuses_what_the_server_refuses() -> None:
    params, ids = params_of("semi_honest"), list(range(9))
    round_, _, vectors = masked(params, ids)
    adder = Adder(round_, ids)
    adder.receive(3, vectors[3])
    before = [total.copy() for total in adder.sums]
    adder.receive(3, vectors[3])  # the same bytes: ignored
    other = vectors[3][:-1] + bytes([vectors[3][-1] ^ 1])
    with pytest.raises(secureagg.FaultyClientError, match="second"):
        adder.receive(3, other)
    for sender, message in [
        (77, vectors[3]), (4, vectors[3]), (4, vectors[4][:-1]), (4, vectors[4] + b"\0"), (4, b""),
        (4, vectors[4][:1] + b"\x02" + vectors[4][2:]),
        (77, vectors[4][:2] + (77).to_bytes(4, "little") + vectors[4][6:]),
    ]:  # fmt: skip
        with pytest.raises(secureagg.MessageError):
            adder.receive(sender, message)
    assert all((a == b).all() for a, b in zip(before, adder.sums, strict=True))
    assert list(adder.marks) == [3]
    back = Adder.from_bytes(adder.to_bytes(), round_)
    assert back.marks == adder.marks
    again = adder.to_bytes()
    assert back.to_bytes() == again
    for data in (again[:-1], again + b"\0", b""):
        with pytest.raises(ValueError, match="bytes"):
            Adder.from_bytes(data, round_)


def test_an_adder_discards_vectors_of_clients_that_dropped_out():
    """A late vector must not spoil the sum of those that are in time."""
    params, ids = params_of("semi_honest"), list(range(9))
    round_, server, vectors = masked(params, ids, late=[8])
    adder = Adder(round_, server._state.expected)
    for i in ids[:8]:
        adder.receive(i, vectors[i])
    adder.receive(8, bytes([1, 3]) + (8).to_bytes(4, "little") + round_.ctx)
    assert sorted(adder.marks) == ids[:8]
    server.receive_sum(Adder.from_bytes(adder.to_bytes(), round_))
    assert sorted(server.close_stage()) == ids[:8]


def test_a_partial_sum_is_of_this_very_round():
    params, ids = params_of("semi_honest"), list(range(9))
    _, server, _ = masked(params, ids)
    other, _, vectors = masked(replace(params, attempt=1), ids)
    part = Adder(other, ids)
    for i in ids:
        part.receive(i, vectors[i])
    with pytest.raises(secureagg.MisuseError, match="another context"):
        server.receive_sum(part)
    with pytest.raises(ValueError, match="another context"):
        Adder.from_bytes(part.to_bytes(), server._round)
    assert not server._received
    assert not any(total.any() for total in server._sums)


def test_a_partial_sum_is_taken_once_at_its_stage_of_whom_is_expected():
    params, ids = params_of("semi_honest"), list(range(9))
    round_, server, vectors = masked(params, ids)
    one, two = Adder(round_, ids), Adder(round_, ids)
    for i in ids[:4]:
        one.receive(i, vectors[i])
    for i in ids[3:]:
        two.receive(i, vectors[i])
    early = ServerSession.in_round(round_)
    with pytest.raises(secureagg.MisuseError, match="advertise_keys"):
        early.receive_sum(one)
    stranger = Adder(round_, ids)
    stranger.marks[77] = bytes(16)
    with pytest.raises(secureagg.MisuseError, match="not expected"):
        server.receive_sum(stranger)
    server.receive_sum(one)
    with pytest.raises(secureagg.MisuseError, match="taken before"):
        server.receive_sum(two)  # client 3 is in both
    server.receive(3, vectors[3])  # the same bytes: ignored
    with pytest.raises(secureagg.FaultyClientError):
        server.receive(3, vectors[3][:-1] + bytes([vectors[3][-1] ^ 1]))
    for i in ids[4:]:
        server.receive(i, vectors[i])
    assert set(server.close_stage()) == set(ids)
