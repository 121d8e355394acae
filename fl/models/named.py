"""The models that a Job knows by name, sized from the data that they are trained on."""

import functools
from collections.abc import Callable

from fl.datasets.dataset import FederatedDataset
from fl.errors import PlanError, fault
from fl.models.base import Model
from fl.models.convolution import cnn
from fl.models.dense import linear, logistic, two_nn
from fl.models.recurrent import char_lstm

_CLASSIFIERS: dict[str, Callable[[int, int], Model]] = {
    "logistic": logistic,
    "2nn": two_nn,
    "cnn": cnn,
    "cnn-lax": functools.partial(cnn, form="lax"),
}
_SEQUENCES: dict[str, Callable[[int], Model]] = {
    "char-lstm": char_lstm,
    "char-lstm-small": functools.partial(char_lstm, hidden=32, layers=1),
}
MODELS = (*_CLASSIFIERS, *_SEQUENCES, "linear")


def named(name: str, data: FederatedDataset) -> Model:
    """Returns a model of `MODELS` with the inputs and outputs of a data set.

    "cnn" has im2col convolutions and "cnn-lax" those of lax: see `fl.models.convolution`.

    Raises:
        PlanError: the name is unknown, or the model does not take such data.
    """
    x, classes = data.fields["x"], data.num_classes
    if name == "linear":
        if classes is not None:
            raise _misfit(name, f"{classes} classes", "data without classes: a number to predict")
        return linear(_num_features(name, data))
    if name not in MODELS:
        raise PlanError((fault("model", name, " | ".join(MODELS)),))
    if classes is None:
        raise _misfit(name, "data without classes", "data with classes; linear takes numbers")
    if name in _SEQUENCES:
        if x.ndim != 2 or x.dtype.kind not in "iu" or data.fields["y"].shape != x.shape:
            raise _misfit(name, f"x {x.dtype}{list(x.shape)}", "sequences of symbols, x like y")
        return _SEQUENCES[name](classes)
    return _CLASSIFIERS[name](_num_features(name, data), classes)


def _num_features(name: str, data: FederatedDataset) -> int:
    x = data.fields["x"]
    if x.ndim != 2 or x.dtype.kind != "f":
        raise _misfit(name, f"x {x.dtype}{list(x.shape)}", "one row of float32 per example")
    return int(x.shape[1])


def _misfit(name: str, got: str, takes: str) -> PlanError:
    return PlanError((fault(f"model {name}", got, takes),))
