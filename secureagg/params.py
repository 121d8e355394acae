"""What a round is: Segment, Params and their canonical bytes."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from secureagg import _tails
from secureagg._codec import Reader, prefixed, u16, u32, u64
from secureagg._tails import Failure
from secureagg.errors import ParamsError

STAGES = ("advertise_keys", "share_keys", "mask_input", "check_consistency", "unmask")

Rate = float | str | Decimal | Fraction

_FORMAT = 1  # of the canonical bytes


@dataclass(frozen=True)
class Segment:
    """A named part of every client's vector, with its own modulus.

    Attributes:
        name: 1..255 UTF-8 bytes.
        length: elements, at least 1.
        modulus_bits: elements are residues mod 2^modulus_bits, 1..62.

    Raises:
        ParamsError: a field is out of range.
    """

    name: str
    length: int
    modulus_bits: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not 1 <= _utf8_bytes(self.name) <= 255:
            raise ParamsError("segments.name", self.name, "a string of 1..255 UTF-8 bytes")
        _check_int(self, "length", 1, (1 << 32) - 1, "segments.length")
        _check_int(self, "modulus_bits", 1, 62, "segments.modulus_bits")


@dataclass(frozen=True, repr=False)
class Params:
    """Everything the parties of one round agree on beforehand, ids aside.

    The constructor refuses a privacy failure probability above 2^-security_bits over the run;
    `security_bits=0` switches that off for measuring and shows in the repr. A weak correctness
    only costs aborts, so it is reported by `failure` and not refused.

    Attributes:
        num_clients: n, invited clients, 2..2^30.
        segments: at least one, names distinct.
        degree: neighbours of each client: n - 1 (complete graph), or even and below n - 1.
        threshold: shares that rebuild a secret, 1..degree.
        min_survivors: below this many survivors nothing is released, 1..n.
        corrupt: fraction of clients that may side with the server, exact decimal in [0, 1).
        dropout: fraction that may be gone at any stage, exact decimal in [0, 1).
        rounds: rounds of the run that the failure probabilities cover, at least 1.
        server: "semi_honest" (follows the protocol) or "malicious" (does what it likes).
        security_bits: the failure of privacy is at most 2^-security_bits over the run.
        correctness_bits: what the failure of correctness was chosen for, over the run.
        session_id: 1..255 bytes, different for every run.
        round_index: 0..rounds - 1.
        attempt: repetitions of this round before this one.
        graph_seed: 1..255 public bytes that shuffle the sparse graph; None: complete graph.

    Raises:
        ParamsError: naming the field.
    """

    num_clients: int
    segments: tuple[Segment, ...]
    degree: int
    threshold: int
    min_survivors: int
    corrupt: Rate
    dropout: Rate
    rounds: int
    server: str
    security_bits: int
    correctness_bits: int
    session_id: bytes
    round_index: int
    attempt: int
    graph_seed: bytes | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", checked_segments(self.segments))
        n = _check_int(self, "num_clients", 2, 1 << 30)
        _check_int(self, "degree", 1, n - 1)
        if self.degree != n - 1 and (self.degree % 2 or self.graph_seed is None):
            takes = f"{n - 1}, or with a graph_seed an even number below it"
            raise ParamsError("degree", self.degree, takes)
        _check_int(self, "threshold", 1, self.degree)
        _check_int(self, "min_survivors", 1, n)
        check_rate("dropout", self.dropout)
        if n - floor_of(check_rate("corrupt", self.corrupt), n) < 2:
            raise ParamsError("corrupt", self.corrupt, "at least 2 honest clients left")
        _check_int(self, "rounds", 1, (1 << 32) - 1)
        check_server(self.server)
        _check_int(self, "security_bits", 0, 256)
        _check_int(self, "correctness_bits", 0, 256)
        _check_bytes("session_id", self.session_id)
        _check_int(self, "round_index", 0, self.rounds - 1)
        _check_int(self, "attempt", 0, (1 << 32) - 1)
        if self.graph_seed is not None:
            _check_bytes("graph_seed", self.graph_seed)
        if self.failure.privacy > 2.0**-self.security_bits:
            takes = f"privacy failure {self.failure.privacy:.3g} at most 2^-{self.security_bits}"
            found = self.failure
            others = max(found.exposed, found.divided)
            field = "degree" if found.disconnected > others else "threshold"
            raise ParamsError(field, getattr(self, field), takes)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
        warning = "" if self.security_bits else "; MEASURING ONLY: claims no privacy"
        return f"Params({fields}{warning})"

    @property
    def max_corrupt(self) -> int:
        """Clients that may be corrupt: c = floor(corrupt n)."""
        return floor_of(self.corrupt, self.num_clients)

    @property
    def max_dropped(self) -> int:
        """Clients that may be gone: D = floor(dropout n)."""
        return floor_of(self.dropout, self.num_clients)

    @property
    def required_survivors(self) -> int:
        """Survivors below which nothing is released: min_survivors, and 2 honest ones."""
        return max(self.min_survivors, self.max_corrupt + 2)

    @property
    def failure(self) -> Failure:
        """Failure probabilities over the run of `rounds` rounds."""
        return _tails.failure(
            self.num_clients,
            self.max_corrupt,
            self.max_dropped,
            self.degree,
            self.threshold,
            self.rounds,
            malicious=self.malicious,
            most_dropped=self.num_clients - self.required_survivors,
        )

    @property
    def malicious(self) -> bool:
        """Whether the server may do what it likes: signatures and check_consistency."""
        return self.server == "malicious"

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that run: without check_consistency where the server is semi-honest."""
        return tuple(s for s in STAGES if self.malicious or s != "check_consistency")

    def to_bytes(self) -> bytes:
        """Returns the canonical bytes: equal exactly for parameters that mean the same."""
        segments = (
            prefixed(s.name.encode()) + u32(s.length) + bytes([s.modulus_bits])
            for s in self.segments
        )
        rates = (Fraction(str(rate)) for rate in (self.corrupt, self.dropout))
        return b"".join(
            (
                bytes([_FORMAT]),
                u32(self.num_clients),
                u16(len(self.segments)),
                *segments,
                *(u32(v) for v in (self.degree, self.threshold, self.min_survivors)),
                *(prefixed(f"{r.numerator}/{r.denominator}".encode()) for r in rates),
                u32(self.rounds),
                prefixed(self.server.encode()),
                u16(self.security_bits),
                u16(self.correctness_bits),
                prefixed(self.session_id),
                u64(self.round_index),
                u64(self.attempt),
                prefixed(self.graph_seed or b""),
            )
        )

    @staticmethod
    def from_bytes(data: bytes) -> "Params":
        """Undoes `to_bytes`.

        Raises:
            ParamsError: they are not the canonical bytes of any parameters.
        """
        try:
            found = _params_from(Reader(data))
        except (ValueError, ZeroDivisionError):
            found = None
        if found is None or found.to_bytes() != bytes(data):
            raise ParamsError("params", f"{len(data)} bytes", "bytes that Params.to_bytes wrote")
        return found


def _params_from(reader: Reader) -> Params:
    """Reads what `Params.to_bytes` wrote; ValueError where something is missing.

    Another format, or bytes too many, show when the result is written again.
    """
    reader.byte()
    num_clients = reader.number()
    segments = tuple(
        Segment(str(reader.prefixed(), "utf-8"), reader.number(), reader.byte())
        for _ in range(reader.number(2))
    )
    degree, threshold, min_survivors = (reader.number() for _ in range(3))
    corrupt, dropout = (_exact(str(reader.prefixed(), "ascii")) for _ in range(2))
    rounds, server = reader.number(), str(reader.prefixed(), "ascii")
    security_bits, correctness_bits = reader.number(2), reader.number(2)
    session_id = bytes(reader.prefixed())
    round_index, attempt = reader.number(8), reader.number(8)
    graph_seed = bytes(reader.prefixed()) or None
    return Params(
        num_clients, segments, degree, threshold, min_survivors, corrupt, dropout, rounds, server,
        security_bits, correctness_bits, session_id, round_index, attempt, graph_seed,
    )  # fmt: skip


def floor_of(rate: Rate, num_clients: int) -> int:
    """Returns floor(rate * num_clients) with the rate read as the decimal it prints as.

    0.1 means one tenth, not the binary number next to it: floor_of(0.29, 100) == 29.
    """
    return math.floor(Fraction(str(rate)) * num_clients)


def checked_segments(
    segments: Sequence[Segment] | Mapping[str, tuple[int, int]],
) -> tuple[Segment, ...]:
    """Returns segments from either form; ParamsError where they are none or too many."""
    if isinstance(segments, Mapping):
        segments = [Segment(name, *shape) for name, shape in segments.items()]
    found = tuple(segments)
    if not 1 <= len(found) <= 255 or not all(isinstance(s, Segment) for s in found):
        raise ParamsError("segments", segments, "1..255 of Segment")
    if len({s.name for s in found}) != len(found):
        raise ParamsError("segments", [s.name for s in found], "distinct names")
    return found


def check_server(server: str) -> None:
    """Raises ParamsError unless it is one of the two kinds."""
    if server not in ("semi_honest", "malicious"):
        raise ParamsError("server", server, "'semi_honest' or 'malicious'")


def _exact(rate: Rate) -> Fraction:
    """Returns the number that a rate prints as; ValueError where it is none.

    A short exponent can stand for gigabytes of digits, so it is looked at before they are made.
    """
    text = str(rate)
    if len(text.lower().partition("e")[2]) > 5:
        raise ValueError("an exponent of more than 4 digits")
    return Fraction(text)


def check_rate(field: str, rate: Rate) -> Rate:
    """Returns a rate in [0, 1) as it came; ParamsError otherwise."""
    try:
        value = _exact(rate)
        # beyond that Python does not write the canonical bytes' decimal digits
        fine = not isinstance(rate, bool) and 0 <= value < 1 and value.denominator < 10**4000
    except (ValueError, ZeroDivisionError):
        fine = False
    if not fine:
        raise ParamsError(field, rate, "a decimal number in [0, 1) of at most 4000 digits")
    return rate


def _check_bytes(field: str, value: bytes) -> None:
    if not isinstance(value, bytes) or not 1 <= len(value) <= 255:
        raise ParamsError(field, value, "1..255 bytes")


def as_int(field: str, value: int, low: int, high: int) -> int:
    """Returns an integer in low..high as a plain int; ParamsError otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        number = low - 1
    if isinstance(value, bool) or not low <= number <= high:
        raise ParamsError(field, value, f"an integer in {low}..{high}")
    return number


def _check_int(owner: object, field: str, low: int, high: int, shown: str | None = None) -> int:
    """Checks an integer field and stores it as a plain int."""
    number = as_int(shown or field, getattr(owner, field), low, high)
    object.__setattr__(owner, field, number)
    return number


def _utf8_bytes(name: str) -> int:
    """Bytes that a string takes; 0 for one that has no UTF-8."""
    try:
        return len(name.encode())
    except UnicodeEncodeError:
        return 0
