"""Models as plain functions of their parameters, and adapters for those of Flax and Equinox."""

from fl.models.adapters import from_equinox, from_flax, from_nnx
from fl.models.base import (
    Model,
    ModelLoss,
    classifier,
    masked_mean,
    regression,
    sequence_classifier,
)
from fl.models.convolution import cnn
from fl.models.dense import linear, logistic, two_nn
from fl.models.named import MODELS, named
from fl.models.recurrent import char_lstm

__all__ = (
    "MODELS",
    "Model",
    "ModelLoss",
    "char_lstm",
    "classifier",
    "cnn",
    "from_equinox",
    "from_flax",
    "from_nnx",
    "linear",
    "logistic",
    "masked_mean",
    "named",
    "regression",
    "sequence_classifier",
    "two_nn",
)
