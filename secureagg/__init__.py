"""Secure aggregation: integer vectors of n clients in, their sum over the survivors out.

The protocol of Bonawitz et al. (CCS 2017) on the complete graph and of Bell et al. (CCS 2020) on a
sparse one, for a server that follows the protocol and for one that does not. docs/protocol.md is
its specification.

>>> import numpy as np
>>> import secureagg
>>> params = secureagg.choose_params(
...     5, {"counts": (3, 16)}, corrupt=0.2, dropout=0.2, server="semi_honest", rounds=1
... )
>>> inputs = {i: np.array([i, 1, 0]) for i in range(5)}
>>> result = secureagg.run_round(params, inputs, dropouts={"mask_input": [4]})
>>> result.sums["counts"].tolist(), result.survivors
([6, 4, 0], (0, 1, 2, 3))
"""

from secureagg.attestation import Attestation, verify_quorum
from secureagg.cost import RoundCost
from secureagg.errors import (
    FaultyClientError,
    FaultyClientOrServerError,
    FaultyServerError,
    MessageError,
    MisuseError,
    ParamsError,
    ProtocolError,
    RosterError,
    SecureAggError,
    TooFewClientsError,
)
from secureagg.finder import choose_params
from secureagg.once import MemoryOnce, SqliteOnce, once_key
from secureagg.opening import commit_opening, opened_seed
from secureagg.params import STAGES, Params, Segment
from secureagg.prediction import predict_cost
from secureagg.prg import byte_stream
from secureagg.primitives import IdentityKey
from secureagg.recovery import Aggregate
from secureagg.roster import (
    is_present,
    roster_hash,
    sign_presence,
    sign_roster,
    verify_roster,
)
from secureagg.server_session import ServerSession
from secureagg.session import ClientSession
from secureagg.simulate import RoundResult, outcome, run_round
from secureagg.spread import spread_round

__all__ = [
    "STAGES",
    "Aggregate",
    "Attestation",
    "ClientSession",
    "FaultyClientError",
    "FaultyClientOrServerError",
    "FaultyServerError",
    "IdentityKey",
    "MemoryOnce",
    "MessageError",
    "MisuseError",
    "Params",
    "ParamsError",
    "ProtocolError",
    "RosterError",
    "RoundCost",
    "RoundResult",
    "SecureAggError",
    "Segment",
    "ServerSession",
    "SqliteOnce",
    "TooFewClientsError",
    "byte_stream",
    "choose_params",
    "commit_opening",
    "is_present",
    "once_key",
    "opened_seed",
    "outcome",
    "predict_cost",
    "roster_hash",
    "run_round",
    "sign_presence",
    "sign_roster",
    "spread_round",
    "verify_quorum",
    "verify_roster",
]
