"""One organisation's long-lived process: requests in, answers out, free of sockets.

It alone holds data, identity key, roster, plan, session, ledger and the compiled training step.
What brings the requests is not trusted: the program that the server ships, and whoever else can
write to the socket, can ask for anything, and gets what the protocol and this client's own plan
allow, once. A request that is refused has changed nothing. docs/privacy.md, "Across organisations".
"""

import hashlib
import logging

import jax
import numpy as np

import dp
from fl import secure
from fl.arrays import tree_bytes, tree_from_bytes
from fl.engines import wire
from fl.engines.journal import Journal, Open
from fl.engines.terms import Terms
from fl.engines.wire import Hello, Limits, Reply, Status, Step
from fl.errors import RefusedError
from fl.privacy import RELATION, Privacy
from fl.round import Clock, encoded, rand_of
from fl.site import Order, Site

LOG = logging.getLogger("fl.organisation")
_REFUSALS = (RefusedError, secure.SecureAggError, dp.ReleaseLimitError)


def limits_of(terms: Terms) -> Limits:
    """Returns the longest request that an organisation takes."""
    return Limits(wire.control_limit(len(terms.roster)), tree_bytes(terms.broadcast))


class Organisation:
    """Answers requests, one at a time.

    Args:
        terms: the plan that this organisation signed.
        member: which entry of the roster this is.
        identity: the key that the roster lists for it.
        site: trains on its data.
        journal: what it must never forget.
    """

    def __init__(
        self,
        terms: Terms,
        member: int,
        identity: secure.IdentityKey,
        site: Site,
        journal: Journal,
    ) -> None:
        self._terms, self._member, self._identity = terms, member, identity
        self._site, self._journal = site, journal
        self.limits = limits_of(terms)

    def handle(self, request: bytes) -> bytes:
        """Answers one request; never raises for what is asked.

        A refusal says why. What goes wrong for another reason (in training, on disk) is logged
        here and not told: an answer must not depend on the data.
        """
        try:
            asked = wire.read_request(request, self.limits)
        except ValueError as error:
            LOG.warning("refused: malformed: %s", error)
            return wire.refusal(f"malformed: {error}").to_bytes()
        place = "hello" if isinstance(asked, Hello) else _place(asked)
        try:
            with self._journal.transaction():
                answer = self._answer(asked, request)
            self._log(asked)  # what is logged is on disk
        except _REFUSALS as error:
            LOG.warning("refused: %s: %s: %s", place, type(error).__name__, error)
            return wire.refusal(f"{type(error).__name__}: {error}").to_bytes()
        except Exception:  # the process outlives whatever one request brings about
            LOG.exception("failed: %s", place)
            return wire.refusal("failed").to_bytes()
        else:
            return answer

    def _log(self, answered: Hello | Step) -> None:
        if isinstance(answered, Step):
            if answered.stage == "mask_input":
                LOG.info("charged: %s", self.releases)
            LOG.info("answered: %s", _place(answered))

    def _answer(self, asked: Hello | Step, request: bytes) -> bytes:
        if asked.session != self._terms.session:
            takes = f"{self._terms.session.hex()}, which names this plan and roster"
            raise RefusedError("session", asked.session.hex(), takes)
        if isinstance(asked, Hello):
            signature = secure.sign_presence(
                self._identity, asked.session, self._member, asked.nonce
            )
            return wire.presence(self._member, signature).to_bytes()
        mark = hashlib.sha256(request).digest()
        before = self._journal.open_attempt()
        if before is not None and before.asked == mark:
            return before.answer  # the same bytes as before tell nothing new
        self._check_place(asked)
        step = self._begin if asked.stage == "advertise_keys" else self._go_on
        answer, session = step(asked, before)
        reply = _reply(asked.stage, answer)
        session.acknowledge()  # what it sent is kept below
        state = session.to_bytes()
        self._journal.keep(Open(asked.round_index, asked.attempt, state, mark, reply))
        return reply

    def _check_place(self, asked: Step) -> None:
        rounds = self._terms.plan.rounds
        if asked.round_index >= rounds:
            raise RefusedError("round", asked.round_index, f"a round of the plan, below {rounds}")
        if self._member not in self._terms.members(asked.round_index):
            takes = "a round that the plan invites this member to"
            raise RefusedError("round", asked.round_index, takes)
        if (asked.broadcast != b"") != (asked.stage == "mask_input"):
            got = f"{len(asked.broadcast)} bytes at {asked.stage}"
            raise RefusedError("broadcast", got, "the model at mask_input, and only there")
        opens = asked.stage == "advertise_keys"
        if (asked.message == b"") != opens and not (opens and self._terms.keeps_state):
            got = f"{len(asked.message)} bytes at {asked.stage}"
            raise RefusedError("message", got, "none at advertise_keys, and one elsewhere")

    def _begin(self, asked: Step, before: Open | None) -> tuple[bytes | None, secure.ClientSession]:
        place = (asked.round_index, asked.attempt)
        if before is not None and place <= (before.round_index, before.attempt):
            takes = f"a later one than {(before.round_index, before.attempt)}"
            raise RefusedError("round and attempt", place, takes)
        try:
            self._journal.settle(wire.read_settled(asked.message))
        except ValueError as error:
            raise RefusedError(
                "message", str(error), "where the last vector was released"
            ) from error
        ledger = self._ledger()
        if ledger is not None and ledger.exhausted[0]:  # rather now than after others have shared
            raise dp.ReleaseLimitError([self._member], ledger.max_releases)
        members = self._terms.members(asked.round_index)
        session = secure.ClientSession(
            self._terms.params_of(*place), self._member, self._signing,
            self._terms.roster_of(members), once=self._journal.once,
            rand=rand_of(self._terms.plan, *place)(self._member),
        )  # fmt: skip
        return session.start(), session

    def _go_on(self, asked: Step, before: Open | None) -> tuple[bytes | None, secure.ClientSession]:
        place = (asked.round_index, asked.attempt)
        if before is None or place != (before.round_index, before.attempt):
            takes = "the attempt that this client began last"
            raise RefusedError("round and attempt", place, takes)
        members = self._terms.members(asked.round_index)
        session = secure.ClientSession.from_bytes(
            before.state, self._terms.params_of(*place), self._member, self._signing,
            self._terms.roster_of(members), once=self._journal.once,
        )  # fmt: skip
        if session.stage != asked.stage:
            takes = f"{session.stage or 'none'}, the next of this attempt"
            raise RefusedError("stage", asked.stage, takes)
        takes = f"the server's message of {asked.stage}"
        earlier = RefusedError("message", "one of an earlier stage", takes)
        if asked.stage == "mask_input":
            if not session.check_shares(asked.message):  # what is refused costs no training
                raise earlier
            self._charge(*place)
            session.set_inputs(self._inputs(asked, members))
        answer = session.receive(asked.message)
        if session.stage == asked.stage:
            raise earlier
        return answer, session

    @property
    def _signing(self) -> secure.IdentityKey | None:
        """The identity key where the protocol signs with it."""
        return self._identity if self._terms.params.server == "malicious" else None

    def _charge(self, round_index: int, attempt: int) -> None:
        """Charges this client before its masked vector leaves; the ledger refuses number r + 1."""
        ledger = self._ledger()
        if ledger is not None:
            ledger.charge(round_index, attempt, [0])
        self._journal.charge(round_index, attempt)

    @property
    def releases(self) -> str:
        """How many masked vectors may have left so far, and how many this client grants."""
        used, limit = len(self._journal.charges()), self._terms.resolved.exposure.max_releases
        if self._ledger() is None:
            return f"{used} releases, of which there is no limit: nothing is promised"
        return f"{used} of the {limit} releases that this client grants"

    @property
    def not_protected(self) -> str | None:
        """Why nothing is promised against the server under this plan, or None."""
        return self._terms.resolved.exposure.refusal("server")

    def _ledger(self) -> dp.Ledger | None:
        """This client's own ledger; None where nothing is promised."""
        exposure = self._terms.resolved.exposure
        if not isinstance(exposure.privacy, Privacy) or exposure.seeded_secrets:
            return None
        ledger = dp.Ledger(
            1,
            max_releases=exposure.max_releases,
            min_survivors=exposure.bounds.min_survivors,
            neighboring=RELATION,
        )
        for round_index, attempt in self._journal.charges():
            ledger.charge(round_index, attempt, [0])
        return ledger

    def _inputs(self, asked: Step, members: list[int]) -> secure.SegmentValues:
        try:
            broadcast = tree_from_bytes(asked.broadcast, self._terms.broadcast)
        except ValueError as error:
            raise RefusedError("broadcast", str(error), "the model of this plan") from error
        order = Order(asked.round_index, asked.attempt, tuple(members), {}, broadcast)
        segments = self._train(order)
        for _, state in self._site.states.pending():
            self._journal.hold(asked.round_index, asked.attempt, state)
        self._site.states.settle(())
        if self._site.report(with_states=False).zeroed:
            LOG.warning("%s: the update is not finite; zero was sent in its place", _place(asked))
        return segments

    def _train(self, order: Order) -> secure.SegmentValues:
        terms, ids = self._terms, (self._member,)
        found = encoded(terms.resolved, terms.encoding, self._site, order, ids, Clock())
        ((_, segments),) = found
        return segments

    def warm_up(self) -> None:
        """Compiles the training step on a model of zeros, so that no stage has to wait for it."""
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), self._terms.broadcast)
        self._train(Order(0, 0, (self._member,), {}, zeros))
        self._site.states.settle(())
        self._site.report(with_states=False)


def _reply(stage: str, answer: bytes | None) -> bytes:
    if answer is None:
        return Reply(Status.SILENT).to_bytes()
    if stage == "mask_input":
        return Reply(Status.ANSWER, bulk=answer).to_bytes()
    return Reply(Status.ANSWER, answer).to_bytes()


def _place(asked: Step) -> str:
    return f"round {asked.round_index}, attempt {asked.attempt}, {asked.stage}"
