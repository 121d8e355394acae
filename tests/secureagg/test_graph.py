import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureagg import graph
from secureagg.primitives import Usage

shapes = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.just(n), st.sampled_from([n - 1, *range(2, n - 1, 2)]), st.binary(min_size=1, max_size=4)
    )
)


@given(shapes)
def test_neighbours_are_regular_symmetric_and_ascending(shape):
    n, degree, seed = shape
    g = graph.build(n, degree, seed)
    near = [g.mask_neighbours(i).tolist() for i in range(n)]
    for i in range(n):
        assert len(near[i]) == degree
        assert near[i] == sorted(set(near[i]))
        assert i not in near[i]
        assert all(i in near[j] for j in near[i])
        assert g.holders(i).tolist() == near[i]


@given(shapes, st.data())
def test_counting_and_core_agree_with_the_definition(shape, data):
    n, degree, seed = shape
    g = graph.build(n, degree, seed)
    alive = set(data.draw(st.sets(st.integers(0, n - 1))))
    threshold = data.draw(st.integers(1, degree))
    near = [set(g.mask_neighbours(i).tolist()) for i in range(n)]
    flags = np.array([i in alive for i in range(n)])
    assert g.count_neighbours(flags).tolist() == [len(near[i] & alive) for i in range(n)]
    while drop := {i for i in alive if len(near[i] & alive) < threshold}:
        alive -= drop
    assert set(np.flatnonzero(g.core(flags, threshold)).tolist()) == alive


def test_seed_decides_the_ring():
    one, two = graph.build(50, 4, b"one"), graph.build(50, 4, b"two")
    assert sorted(one.order.tolist()) == list(range(50))
    assert one.order.tolist() != two.order.tolist()
    assert graph._shuffled(50, b"one", Usage.GRAPH).tolist() == one.order.tolist()


def test_shuffles_are_uniform():
    orders = [
        tuple(graph._shuffled(3, i.to_bytes(4, "big"), Usage.GRAPH).tolist()) for i in range(1200)
    ]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 6
    # chi-square, 5 degrees of freedom: above 30 with probability 1.5e-5; the seeds are fixed
    assert sum((c - 200) ** 2 / 200 for c in counts) < 30


def test_graph_cannot_be_changed_through_its_arrays():
    with pytest.raises(ValueError, match="read-only"):
        graph.build(10, 4, b"s").order[0] = 3


def test_witnesses_are_degree_clients_drawn_apart_from_the_ring():
    g = graph.build(60, 8, b"one")
    assert sorted(set(g.witnesses.tolist())) == g.witnesses.tolist()
    assert len(g.witnesses) == 8
    assert set(g.witnesses.tolist()) != set(g.order[:8].tolist())
    assert g.witnesses.tolist() != graph.build(60, 8, b"two").witnesses.tolist()
    assert graph.build(9, 8, None).witnesses.tolist() == list(range(9))


def test_every_client_is_as_likely_to_be_a_witness():
    drawn = [graph.build(5, 2, i.to_bytes(4, "big")).witnesses for i in range(1000)]
    counts = np.bincount(np.concatenate(drawn), minlength=5)
    # 4 degrees of freedom, variance factor (n - k) / (n - 1): above 30 with probability below 1e-5
    assert sum((c - 400) ** 2 / 400 for c in counts) < 30
