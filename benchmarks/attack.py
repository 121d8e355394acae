"""Attacks on what the server sees: one update, its masked vector, the sum without and with noise.

    python -m benchmarks.attack [--cohorts 12] [--canaries 300] [--show]

100 clients with one image of the digits each train for one step; about half of them, by fair
coins, send zero instead of their update. Clients, encoding, noise shares and masking are the
library's; every masked vector and every sum is read out of `secureagg.run_round`. What an attack is
given, row by row:

    update           the client's clipped update, as under Plain aggregation
    masked vector    what the client uploads, decoded as if it were not masked; no noise in it
    sum              the unmasked sum, no noise
    noised sum       the same with noise shares for one round, at the epsilon of the row
    others known     the same less what every other client sent: the adversary of the guarantee

*Inversion*: with one example the gradient of the first layer is the image times the gradient of
the bias (Phong et al. 2018), so least squares over the units give the image and the sign of the
last layer's bias gives the label. Correlation and PSNR (pixels in [-1/2, 1/2]) are medians over
the clients that sent an update, correlation less the public mean image, which alone is the row
"nothing". "named" is how often, of the 100 images of the cohort, the client's own is the one whose
update fits what is seen best: 1 % is chance.

*Membership*: did the client send its update or zero? Scores are products with that update; the
threshold comes from half of the cohorts and is tried on the others. The advantage is twice the rate
of right guesses less 1: at fair coins the true minus the false positive rate, 0 for guessing. Its
95 % interval (Clopper, Pearson) takes guesses for independent, which those of one cohort, of one
sum, are not quite. Zero-out (epsilon, delta)-DP bounds it by (e^eps - 1 + 2 delta) /
(e^eps + 1), printed beside.

*Audit*: `fl.audit.audit`, ten rounds with canaries: what leaks at least, at 95 % confidence, beside
what the statement claims at most.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import optax
from numpy.typing import NDArray

import dp
import fl
from benchmarks._results import Results, Row
from benchmarks._script import integer_from, options_of
from dp.auditing import binomial_lower
from fl import workers
from fl.audit import audit
from fl.encoding import UPDATE, ClientValue, Encoding, UnnoisedEncoding, round_rotation
from fl.group import alone
from fl.prepare import Prepared, prepare
from fl.streams import streams
from secureagg import masking, run_round
from secureagg.messages import HEADER_BYTES, Kind

CLIENTS, CLIP, DELTA, SIGNIFICANCE = 100, 0.5, 1e-3, 0.05
EPSILONS = (8.0, 1.0)
PICTURES = 8  # kept of each view
FloatArray = NDArray[np.float64]
MODELS = {
    "logistic": lambda: fl.models.logistic(64, 10),
    "2nn": lambda: fl.models.two_nn(64, 10, hidden=32),
}


class Images(NamedTuple):
    """Examples to draw cohorts from, and the public ones.

    Attributes:
        x: f32[N, 64].
        y: int32[N].
        mean: f32[64], of the test images.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int32]
    mean: FloatArray


def images() -> Images:
    """The digits, training and public ones."""
    data = fl.datasets.digits(clients=1, partition="iid", seed=0)
    if data.test is None:
        raise TypeError("digits have a test set")
    mean = np.asarray(data.test["x"], np.float64).mean(axis=0)
    return Images(data.fields["x"].astype(np.float32), data.fields["y"].astype(np.int32), mean)


def cohort_of(digits: Images, rng: np.random.Generator) -> fl.FederatedDataset:
    """100 clients with an image each."""
    chosen = rng.choice(len(digits.y), CLIENTS, replace=False)
    fields = {"x": digits.x[chosen], "y": digits.y[chosen]}
    return fl.FederatedDataset.from_arrays(fields, np.arange(CLIENTS), num_classes=10)


def plan_of(model: fl.Model, epsilon: float | None) -> fl.Plan:
    """One masked round of one local step; without noise where epsilon is None."""
    privacy: fl.Privacy | fl.NotPrivate = fl.NotPrivate(CLIP)
    if epsilon is not None:
        privacy = fl.Privacy(
            unit="client", against="server", epsilon=epsilon, delta=DELTA, clip_norm=CLIP,
            mechanism="skellam",
        )  # fmt: skip
    algorithm = fl.fedavg(
        model.loss, client_optimizer=optax.sgd(0.5), server_optimizer=optax.sgd(1.0),
        batch_size=None, local_epochs=1,
    )  # fmt: skip
    return fl.Plan(
        rounds=1, cohort=fl.cohort.full(), algorithm=algorithm, privacy=privacy, seed=0,
        aggregation=fl.Secure(corrupt=0.1, dropout=0.1, server="semi_honest"),
    )  # fmt: skip


class Round(NamedTuple):
    """One masked round as the server sees it.

    Attributes:
        masked: float64[n, d], every client's upload, decoded as if it were not masked.
        total: float64[d], the sum.
    """

    masked: FloatArray
    total: FloatArray


def updates_of(ready: Prepared) -> FloatArray:
    """What the clients' local training leaves, clipped: float64[n, d]."""
    broadcast = ready.resolved.plan.algorithm.broadcast(ready.state)
    found = np.zeros((CLIENTS, ready.resolved.messages.dim))
    for trained in ready.runner.train(broadcast, 0, range(CLIENTS), lambda _: ready.fresh):
        found[trained.client_ids] = trained.vectors
    return found


def run_masked(ready: Prepared, sent: FloatArray) -> Round:
    """Encodes, noises where the plan does, masks and sums by the real protocol."""
    resolved = ready.resolved
    encoding, params, plan = resolved.encoding, resolved.params, resolved.plan
    if encoding is None or params is None:
        raise TypeError("a masked plan")
    rotation = round_rotation(resolved.messages.dim, plan.seed, 0)
    inputs = {
        i: encoding.encode(
            ClientValue(vector.astype(np.float32), 1, False), rotation, streams(plan, 0, i)
        )
        for i, vector in enumerate(sent)
    }
    uploads: dict[int, NDArray[np.uint64]] = {}
    place = [segment.name for segment in params.segments].index(UPDATE)

    def listen(client_id: int, message: bytes) -> list[tuple[int, bytes]]:
        if message[1] == Kind.MASKED_VECTOR:
            words = masking.unpack_vector(params, memoryview(message)[HEADER_BYTES:])
            uploads[client_id] = words[place].astype(np.uint64)
        return [(client_id, message)]

    sums = run_round(params, inputs, wire=listen).sums
    masked = np.stack([decoded(encoding, uploads[i], rotation) for i in range(CLIENTS)])
    return Round(masked, decoded(encoding, sums[UPDATE], rotation))


def decoded(encoding: Encoding, words: NDArray[np.uint64], rotation: dp.Rotation) -> FloatArray:
    """Words of the update's segment as the floats that they stand for."""
    if isinstance(encoding, UnnoisedEncoding):
        signed = dp.unwrap(words, encoding.segments[UPDATE][1])
        return encoding.discretizer.decode(signed, rotation)
    return encoding.contribution({UPDATE: words}, rotation)


def layers(ready: Prepared, vector: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(weights' gradient [64, units], biases' of the first layer, biases' of the last layer)."""
    tree: Any = ready.resolved.messages.unravel(vector)  # type: ignore[arg-type]  # cuts numpy as well
    first, last = (tree, tree) if isinstance(tree, Mapping) else (tree[0], tree[-1])
    return np.asarray(first["w"]), np.asarray(first["b"]), np.asarray(last["b"])


def inverted(ready: Prepared, view: FloatArray) -> tuple[FloatArray, int]:
    """(image [64], label) that a single example's gradient would come from."""
    weights, biases, outputs = layers(ready, view)
    image = weights @ biases / max(float(biases @ biases), 1e-30)
    return np.clip(image, -0.5, 0.5), int(np.argmin(outputs))


@dataclass
class Found:
    """What one kind of view gave over all cohorts.

    Attributes:
        correlation: of the guessed images with the true ones, of clients that sent their update.
        psnr: in dB.
        named: whether the nearest image of the cohort was the client's own.
        labels: whether the label was right.
        scores: by cohort, float64[n], of membership.
        coins: by cohort, bool[n].
        pictures: the first few guessed images, 64 hexadecimal digits each.
    """

    correlation: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)
    named: list[bool] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    scores: list[FloatArray] = field(default_factory=list)
    coins: list[NDArray[np.bool_]] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    def invert(
        self, guesses: Sequence[tuple[FloatArray, int]], data: fl.FederatedDataset,
        mean: FloatArray, sent: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """Adds a cohort's guessed images and labels, one per client."""
        for i in np.flatnonzero(sent).tolist():
            image, label = guesses[i]
            if len(self.pictures) < PICTURES:
                self.pictures.append(as_digits(image))
            truth = np.asarray(data.fields["x"][i], np.float64)
            a, b = image - mean, truth - mean
            lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
            error = max(float(np.mean((image - truth) ** 2)), 1e-15)
            self.correlation.append(float(a @ b) / max(lengths, 1e-30))
            self.psnr.append(-10.0 * math.log10(error))
            self.labels.append(label == int(data.fields["y"][i]))

    def match(self, seen: FloatArray, updates: FloatArray, sent: NDArray[np.bool_]) -> None:
        """Adds how well what is seen of each client fits each update of the cohort."""
        fits = seen @ (updates / np.linalg.norm(updates, axis=1, keepdims=True)).T
        self.named += (fits.argmax(axis=1) == np.arange(len(sent)))[sent].tolist()
        self.scores.append(np.diagonal(fits).copy())
        self.coins.append(sent)

    def row(self) -> Row:
        """Medians, rates with intervals, and the membership advantage."""
        return {
            "correlation": float(np.median(self.correlation)), "psnr": float(np.median(self.psnr)),
            "label": rate(self.labels), "named": rate(self.named) if self.named else None,
            "advantage": advantage(self.scores, self.coins) if self.scores else None,
            "pictures": self.pictures,
        }  # fmt: skip


def as_digits(image: NDArray[np.floating[Any]]) -> str:
    """An image in [-1/2, 1/2] as 64 hexadecimal digits."""
    return "".join(f"{value:x}" for value in np.rint(15.0 * (image + 0.5)).astype(int).tolist())


def rate(right: Sequence[bool]) -> dict[str, float]:
    """Share of right guesses with its interval."""
    count, trials = int(sum(right)), len(right)
    low = float(binomial_lower(count, trials, SIGNIFICANCE / 2))
    high = 1.0 - float(binomial_lower(trials - count, trials, SIGNIFICANCE / 2))
    return {"value": count / trials, "low": low, "high": high}


def advantage(scores: Sequence[FloatArray], coins: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
    """Membership advantage on half of the cohorts at the best threshold of the others."""
    half = len(scores) // 2
    tuned, known = np.concatenate(scores[:half]), np.concatenate(coins[:half])
    places = np.concatenate([[-np.inf], np.sort(tuned)])
    right = [(np.sum((tuned > place) == known)) for place in places.tolist()]
    threshold = places[int(np.argmax(right))]
    tried, truth = np.concatenate(scores[half:]), np.concatenate(coins[half:])
    found = rate(((tried > threshold) == truth).tolist())
    return {name: 2.0 * value - 1.0 for name, value in found.items()}


def views(round_: Round, sent: FloatArray) -> dict[str, FloatArray]:
    """[n, d] by name: what the adversary has of each client."""
    everybody = np.broadcast_to(round_.total, sent.shape)
    return {"sum": everybody, "sum, others known": everybody - sent.sum(axis=0) + sent}


def attacked(name: str, cohorts: int) -> dict[str, Row]:
    """Rows of a model by view: what each attack has of it, over all cohorts."""
    model, digits, rng = MODELS[name](), images(), np.random.default_rng(0)
    plans = {epsilon: plan_of(model, epsilon) for epsilon in (None, *EPSILONS)}
    by_view: dict[str, Found] = {}
    shown: list[str] = []
    for _ in range(cohorts):
        data = cohort_of(digits, rng)
        coins = rng.random(CLIENTS) < 0.5
        shown += [as_digits(image) for image in data.fields["x"][coins][: PICTURES - len(shown)]]
        seen: dict[str, FloatArray] = {}
        for epsilon, plan in plans.items():
            ready = prepare(plan, model, data, fl.Execution(), alone())
            updates = updates_of(ready)
            sent = np.where(coins[:, None], updates, 0.0)
            round_ = run_masked(ready, sent)
            if epsilon is None:
                seen |= {"update": sent, "masked vector": round_.masked, **views(round_, sent)}
            else:
                seen |= {
                    f"noised {view}, epsilon {epsilon:g}": values
                    for view, values in views(round_, sent).items()
                }
        for view, values in seen.items():
            one = by_view.setdefault(view, Found())
            one.invert([inverted(ready, value) for value in values], data, digits.mean, coins)
            one.match(values, updates, coins)
        guess = [(digits.mean, 0)] * CLIENTS
        by_view.setdefault("nothing", Found()).invert(guess, data, digits.mean, coins)
    return {view: one.row() for view, one in by_view.items()} | {"truth": {"pictures": shown}}


def dp_bound(epsilon: float, delta: float) -> float:
    """What zero-out (epsilon, delta)-DP leaves of the membership advantage."""
    return (math.expm1(epsilon) + 2.0 * delta) / (math.exp(epsilon) + 1.0)


def audits(canaries: int) -> Iterator[tuple[str, Row]]:
    """The pipeline audit of ten rounds of digits, by claimed epsilon and adversary."""
    data = fl.datasets.digits(clients=100, partition="dirichlet:1.0", seed=0)
    model = fl.models.logistic(64, 10)
    for epsilon in EPSILONS:
        algorithm = fl.fedavg(
            model.loss, client_optimizer=optax.sgd(0.5),
            server_optimizer=optax.sgd(1.0, momentum=0.9), batch_size=None, local_epochs=5,
        )  # fmt: skip
        plan = fl.Plan(
            rounds=10, cohort=fl.cohort.full(), algorithm=algorithm, seed=0, eval_every=10,
            privacy=fl.Privacy(
                unit="client", against="server", epsilon=epsilon, delta=DELTA, clip_norm=CLIP,
                mechanism="skellam",
            ),
            aggregation=fl.Ideal(corrupt=0.1, dropout=0.1),
        )  # fmt: skip
        said = audit(plan, model, data, canaries=canaries, significance=SIGNIFICANCE)
        for row in said.rows:
            yield f"audit/epsilon-{epsilon:g}/{row.adversary}", {
                "adversary": row.adversary, "epsilon": epsilon, "delta": row.delta,
                "lower": row.lower, "claimed": row.claimed, "correct": row.correct,
                "canaries": said.canaries, "estimate": row.estimate,
            }  # fmt: skip


def _interval(found: Mapping[str, float] | None, kind: str) -> str:
    if found is None:
        return ""
    return f"{found['value']:{kind}} [{found['low']:{kind}}, {found['high']:{kind}}]"


def table(rows: Mapping[str, Row]) -> str:
    """Inversion and membership by model and view, then the audits."""
    lines = []
    for model in MODELS:
        mine = {k.partition("/")[2]: r for k, r in rows.items() if k.startswith(f"{model}/")}
        if not mine:
            continue
        lines += [
            f"{model}, one image a client: what an attack has",
            f"{'':38}{'correlation':>12}{'PSNR, dB':>10}{'named':>24}{'label right':>13}"
            f"{'membership advantage':>27}{'bound':>7}",
        ]
        for view, row in sorted(mine.items(), key=lambda item: item[1]["order"]):
            if view == "truth":
                continue
            bound = "" if row["bound"] is None else f"{row['bound']:.3f}"
            lines.append(
                f"{view:38}{row['correlation']:12.3f}{row['psnr']:10.1f}"
                f"{_interval(row['named'], '.1%'):>24}{row['label']['value']:13.1%}"
                f"{_interval(row['advantage'], '+.3f'):>27}{bound:>7}"
            )
        lines.append("")
    lines += [
        f"audit, {row['canaries']} canaries, {row['adversary']}: epsilon at least"
        f" {row['lower']:.2f}, claimed at most {row['claimed']:.2f}"
        f" ({row['correct']} of {row['canaries']} coins guessed)"
        for key, row in rows.items() if key.startswith("audit/")
    ]  # fmt: skip
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs attacks and audits, or prints what is there."""
    parser = options_of(__doc__)
    parser.add_argument(
        "--cohorts",
        type=integer_from(2),
        default=12,
        help="of 100 clients; thresholds come from half",
    )
    parser.add_argument("--canaries", type=integer_from(1), default=300, help="of the audits")
    given = parser.parse_args(argv)
    results = Results("attack")
    if not given.show:
        workers.use_one_thread()
        for name in MODELS:
            for order, (view, row) in enumerate(attacked(name, given.cohorts).items()):
                epsilon = float(view.rpartition(" ")[2]) if "epsilon" in view else None
                bound = None if epsilon is None else dp_bound(epsilon, DELTA)
                results.add(f"{name}/{view}", {**row, "order": order, "bound": bound})
        for key, row in audits(given.canaries):
            results.add(key, row)
    print(table(results.rows()))


if __name__ == "__main__":
    main()
