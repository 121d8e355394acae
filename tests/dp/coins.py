"""Events of coins that tests share."""

# mypy: allow-untyped-calls

import dataclasses
import math

import dp

UNIT = 2**-24


def bias(theta):
    return round(theta / UNIT)


def event(trials=4, shares=10, theta=0.2, dim=1, mean=1.0, **changes):
    """`mean` is the mean square of the client's biases over that of the largest."""
    k = bias(theta)
    made = dp.PoissonBinomialEvent(trials, shares, k, max(1, math.floor(k * k * dim * mean)), dim)
    return dataclasses.replace(made, **changes)
