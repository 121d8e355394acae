"""Federated data sets: examples by client, loaders that check what they read, partitions."""

from fl.datasets._plot import label_counts, plot_labels
from fl.datasets.arrays import from_npy, from_npz, to_npz
from fl.datasets.dataset import FederatedDataset
from fl.datasets.named import DATASETS, Description, describe, load
from fl.datasets.partition import (
    Partition,
    assign,
    dirichlet,
    iid,
    parse_partition,
    quantity,
    shards,
)
from fl.datasets.sensors import ACTIVITIES, STATIONS, beijing_air, wisdm
from fl.datasets.tables import from_csv, from_frame, from_hugging_face, from_parquet
from fl.datasets.tabular import HOSPITALS, adult, credit_default, heart_disease
from fl.datasets.text import ALPHABET, NUM_ROLES, shakespeare
from fl.datasets.vision import NUM_WRITERS, digits, fashion_mnist, mnist, mnist_writers

__all__ = (
    "ACTIVITIES",
    "ALPHABET",
    "DATASETS",
    "HOSPITALS",
    "NUM_ROLES",
    "NUM_WRITERS",
    "STATIONS",
    "Description",
    "FederatedDataset",
    "Partition",
    "adult",
    "assign",
    "beijing_air",
    "credit_default",
    "describe",
    "digits",
    "dirichlet",
    "fashion_mnist",
    "from_csv",
    "from_frame",
    "from_hugging_face",
    "from_npy",
    "from_npz",
    "from_parquet",
    "heart_disease",
    "iid",
    "label_counts",
    "load",
    "mnist",
    "mnist_writers",
    "parse_partition",
    "plot_labels",
    "quantity",
    "shakespeare",
    "shards",
    "to_npz",
    "wisdm",
)
