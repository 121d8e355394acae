"""Sessions to bytes and back at every stage; what a restored one does, and what it refuses."""

import concurrent.futures
import stat
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import secureagg
from secureagg import _saved


def reborn(play, client_id, *, once=None, data=None) -> secureagg.ClientSession:
    old = play.clients[client_id]
    return secureagg.ClientSession.from_bytes(
        old.to_bytes() if data is None else data,
        play.params,
        client_id,
        play.keys[client_id],
        play.server._round.identities,
        once=old._once if once is None else once,
    )


def restart_server(play) -> None:
    data = play.server.to_bytes()
    play.server = secureagg.ServerSession.from_bytes(
        data, play.params, dict(play.server._round.identities)
    )
    assert play.server.to_bytes() == data


def restart_everybody(play) -> None:
    for client_id in list(play.clients):
        data = play.clients[client_id].to_bytes()
        outbound = play.clients[client_id].outbound
        suspicions = [str(s) for s in play.clients[client_id].suspicions]
        play.clients[client_id] = reborn(play, client_id)
        assert play.clients[client_id].to_bytes() == data
        assert play.clients[client_id].outbound == outbound
        assert [str(s) for s in play.clients[client_id].suspicions] == suspicions
    restart_server(play)


SHAPES: list[dict[str, Any]] = [
    {"server": "semi_honest", "threshold": 3},
    {"server": "malicious", "threshold": 3},
    {"server": "malicious", "threshold": 3, "n": 12, "degree": 6},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_everybody_restarts_between_any_two_messages(make_play, shape):
    """The same messages and the same sum as without a restart."""
    calm, play = make_play(**shape), make_play(**shape)
    gone: set[int] = set()
    for number, stage in enumerate(play.params.stages):
        if number in (1, 2):
            gone.add(number)
        restart_everybody(play)
        assert play.answers(but=gone) == calm.answers(but=gone)
        for client_id, answer in play.sent.items():
            calm.server.receive(client_id, answer)
            play.server.receive(client_id, answer)
            restart_server(play)
            play.server.receive(client_id, answer)  # a repeat is still a repeat
        assert play.server.stage == stage
        play.inbound = play.server.close_stage()
        calm.inbound = calm.server.close_stage()
        restart_everybody(play)
        assert play.inbound == calm.inbound == play.server.outbound
    play.check()
    one, two = play.server.result, calm.server.result
    assert one.survivors == two.survivors
    assert one.quorum == two.quorum
    assert one.sums["x"].tolist() == two.sums["x"].tolist()


def test_a_restored_server_still_refuses(make_play):
    play = make_play(0)
    play.answers()
    play.server.receive(0, play.sent[0])
    restart_server(play)
    with pytest.raises(secureagg.FaultyClientError, match="second"):
        play.server.receive(0, play.sent[0][:-1] + bytes([play.sent[0][-1] ^ 1]))
    stolen = play.edit(play.sent[1], play.sent[0][38:])
    with pytest.raises(secureagg.MessageError, match="sent before"):
        play.server.receive(1, stolen)


def test_the_server_keeps_one_sum_whatever_the_number_of_vectors(make_params, make_play):
    sizes = []
    for n in (6, 12):
        segments = (secureagg.Segment("x", 20_000, 32),)
        play = make_play(2, params=make_params(n=n, segments=segments))
        play.answers()
        before = len(play.server.to_bytes())
        for client_id, message in play.sent.items():
            play.server.receive(client_id, message)
        sizes.append(len(play.server.to_bytes()) - before)
    assert all(size < 12 * 64 for size in sizes)


def test_inputs_and_suspicions_survive(make_play):
    play = make_play(2)
    inbound = bytearray(play.inbound[0])
    inbound[38 + 1 + 4] ^= 1  # the first box
    play.inbound[0] = bytes(inbound)
    play.step()
    restart_everybody(play)
    assert [s.client_id for s in play.clients[0].suspicions] == [1]
    play.finish()


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
@pytest.mark.parametrize("durable", [False, True])
def test_two_restores_of_one_snapshot_act_once(make_play, server, durable, tmp_path):
    """Masking, signing and unmasking; before that, both send the same bytes."""
    once: Any = secureagg.SqliteOnce(tmp_path / "once") if durable else secureagg.MemoryOnce()
    play = make_play(0, server=server, threshold=4)
    play.clients[0]._once = once
    refusals = []
    while play.server.stage is not None:
        play.answers(but=[0])
        data = play.clients[0].to_bytes()
        one, two = (reborn(play, 0, once=once, data=data) for _ in range(2))
        act = [s.receive if play.inbound else (lambda _, s=s: s.start()) for s in (one, two)]
        message = play.inbound.get(0, b"")
        play.sent[0] = act[0](message)
        if play.server.stage == "share_keys":
            assert act[1](message) == play.sent[0]
        else:
            with pytest.raises(secureagg.MisuseError, match="taken before") as caught:
                act[1](message)
            refusals.append(caught.value.step)
        play.clients[0] = one
        for client_id, answer in play.sent.items():
            play.server.receive(client_id, answer)
        play.inbound = play.server.close_stage()
    play.check()
    assert refusals == [s for s in play.params.stages if s != "share_keys"]


@pytest.mark.parametrize("server", ["semi_honest", "malicious"])
def test_a_record_that_has_forgotten_the_start_stops_every_later_step(make_play, server):
    """Restored with an empty record, a session sends again what it sent, and drops out."""
    play = make_play(0, server=server, threshold=4)
    stopped = []
    while play.server.stage is not None:
        old = play.clients[0].to_bytes()
        answer = play.answers()[0]
        if play.server.stage == "share_keys":
            blank = reborn(play, 0, once=secureagg.MemoryOnce(), data=old)
            assert blank.receive(play.inbound[0]) == answer
        elif play.server.stage != "advertise_keys":
            blank = reborn(play, 0, once=secureagg.MemoryOnce(), data=old)
            with pytest.raises(secureagg.MisuseError, match="record is lost"):
                blank.receive(play.inbound[0])
            assert blank.to_bytes() == old
            stopped.append(play.server.stage)
        assert reborn(play, 0, once=secureagg.MemoryOnce()).outbound == answer
        for client_id, message in play.sent.items():
            play.server.receive(client_id, message)
        play.inbound = play.server.close_stage()
    play.check()
    assert stopped == [s for s in play.params.stages if s not in ("advertise_keys", "share_keys")]


def test_a_restored_client_sends_the_same_bytes_again(make_play):
    play = make_play(0, server="malicious", threshold=4)
    while play.server.stage is not None:
        answer = play.answers()[0]
        assert reborn(play, 0).outbound == answer
        for client_id, message in play.sent.items():
            play.server.receive(client_id, message)
        play.server.receive(0, answer)
        play.inbound = play.server.close_stage()


def test_damaged_or_foreign_snapshots(make_play, make_params):
    play = make_play(2, server="malicious", threshold=4)
    roster = dict(play.server._round.identities)
    client, server = play.clients[0].to_bytes(), play.server.to_bytes()

    def load(data, *, params=play.params, client_id=0, who=roster) -> Any:
        return secureagg.ClientSession.from_bytes(
            data, params, client_id, play.keys[client_id], who, once=secureagg.MemoryOnce()
        )

    def load_server(data) -> Any:
        return secureagg.ServerSession.from_bytes(data, play.params, roster)

    load(client)
    load_server(server)
    for data, loader in ((client, load), (server, load_server)):
        for cut in (0, 1, 33, 65, len(data) // 2, len(data) - 1):
            with pytest.raises(secureagg.MisuseError):
                loader(data[:cut])
        for at in range(0, len(data), 41):
            with pytest.raises(secureagg.MisuseError):
                loader(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    cases: list[tuple[Any, str]] = [
        (lambda: load(server), "client's"),
        (lambda: load_server(client), "client's"),
        (lambda: load(client, client_id=1), "another client"),
        (lambda: load(client, params=make_params(server="malicious", attempt=1)), "context"),
        (lambda: load(b"\x02" + client[1:]), "version"),
    ]
    for wrong, match in cases:
        with pytest.raises(secureagg.MisuseError, match=match):
            wrong()


def test_bodies_are_length_checked_behind_the_digest(make_play):
    """Well-framed nonsense: the digest is right, the body is not."""
    play = make_play(2)
    roster = dict(play.server._round.identities)
    ctx = play.server._round.ctx
    generator = np.random.default_rng(0)
    for role, data in ((1, play.clients[0].to_bytes()), (2, play.server.to_bytes())):
        body = data[34:-32]
        cases = [body[:cut] for cut in range(0, len(body), 97)] + [body + b"\0"]
        for _ in range(300):
            at = int(generator.integers(4, 60))
            cases.append(body[:at] + generator.bytes(1) + body[at + 1 :])
        for case in cases:
            saved = _saved.frame(role, ctx, case)
            try:
                if role == _saved.CLIENT:
                    secureagg.ClientSession.from_bytes(
                        saved, play.params, 0, None, roster, once=secureagg.MemoryOnce()
                    )
                else:
                    secureagg.ServerSession.from_bytes(saved, play.params, roster)
            except secureagg.MisuseError:
                continue
            assert len(case) == len(body)


def test_unknown_states_are_refused(make_play):
    play = make_play(3)
    roster = dict(play.server._round.identities)
    ctx = play.server._round.ctx
    body = make_play(0).clients[0].to_bytes()[34:-32]
    saved = _saved.frame(_saved.CLIENT, ctx, body[:4] + b"\x07" + body[5:])
    with pytest.raises(secureagg.MisuseError, match="state 7"):
        secureagg.ClientSession.from_bytes(
            saved, play.params, 0, None, roster, once=secureagg.MemoryOnce()
        )
    body = play.server.to_bytes()[34:-32]
    saved = _saved.frame(_saved.SERVER, ctx, b"\x09" + body[1:])
    with pytest.raises(secureagg.MisuseError, match="state 9"):
        secureagg.ServerSession.from_bytes(saved, play.params, roster)


def test_sqlite_once_remembers_across_instances_and_processes(tmp_path):
    path = tmp_path / "once.sqlite"
    once = secureagg.SqliteOnce(path)
    assert [once(b"a"), once(b"a"), once(b"b")] == [True, False, True]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code = (
        "import os, secureagg, sys\n"
        f"o = secureagg.SqliteOnce({str(path)!r})\n"
        "assert (o(b'a'), o(b'c')) == (False, True)\n"
        "os._exit(7)\n"  # no clean-up of any kind
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": "."})
    assert done.returncode == 7
    again = secureagg.SqliteOnce(path)
    assert [again(b"c"), again(b"d")] == [False, True]


def test_sqlite_once_lets_one_of_many_through(tmp_path):
    path = tmp_path / "once.sqlite"

    def ask(_: int) -> int:
        once = secureagg.SqliteOnce(path)
        return sum(once(b"key %d" % i) for i in range(5))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, range(8))) == 5


def test_sqlite_once_refuses_a_file_that_others_may_open(tmp_path):
    path = tmp_path / "once.sqlite"
    path.touch(mode=0o600)
    path.chmod(0o644)
    with pytest.raises(secureagg.MisuseError, match="others"):
        secureagg.SqliteOnce(path)


def test_sqlite_once_refuses_what_it_cannot_open_or_read(tmp_path):
    with pytest.raises(secureagg.MisuseError, match="No such file"):
        secureagg.SqliteOnce(tmp_path / "missing" / "once.sqlite")
    with pytest.raises(secureagg.MisuseError, match="directory"):
        secureagg.SqliteOnce(tmp_path)
    path = tmp_path / "notes.txt"
    path.write_text("not a database, and longer than the header of one\n" * 20, encoding="utf-8")
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(secureagg.MisuseError, match="not a database"):
        secureagg.SqliteOnce(path)
    assert path.read_bytes() == before


def test_a_session_that_has_lost_its_record_does_not_run(make_play, tmp_path):
    """What cannot be written down is not done."""
    play = make_play(2)
    once = secureagg.SqliteOnce(tmp_path / "once.sqlite")
    play.clients[0]._once = once
    (tmp_path / "once.sqlite").write_bytes(b"not a database, and longer than a header" * 9)
    state = play.clients[0]._state
    with pytest.raises(Exception, match="not a database"):
        play.clients[0].receive(play.inbound[0])
    assert play.clients[0]._state is state


def test_what_the_server_has_confirmed_is_not_kept(make_params, make_play):
    params = make_params(segments=(secureagg.Segment("x", 20_000, 32),))
    play = make_play(2, params=params)
    answer = play.answers()[0]
    kept = len(play.clients[0].to_bytes())
    play.clients[0].acknowledge()
    assert play.clients[0].outbound is None
    assert len(play.clients[0].to_bytes()) < kept - 4 * 20_000
    assert reborn(play, 0).outbound is None
    assert len(answer) > 4 * 20_000


def test_once_whose_file_is_gone_says_no_and_does_not_make_another(tmp_path):
    path = tmp_path / "once"
    once = secureagg.SqliteOnce(path)
    assert once(b"first")
    path.unlink()
    with pytest.raises(secureagg.MisuseError, match="once"):
        once(b"first")
    assert not path.exists()
