"""A picture of who holds what. Needs matplotlib, the extra `report`."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from fl.datasets.dataset import FederatedDataset
from fl.errors import DataError, MissingExtraError

MAX_CLIENTS = 500  # more columns than this are thinner than a pixel


def label_counts(data: FederatedDataset) -> npt.NDArray[np.int64]:
    """Examples of each class that each client holds, int64 [num_clients, num_classes].

    Labels per position, as of text, are counted per position.

    Raises:
        DataError: the data have no classes.
    """
    if data.num_classes is None or "y" not in data.fields:
        raise DataError("dataset", f"{data.name}, without classes", "a data set with classes")
    counts = np.zeros((data.num_clients, data.num_classes), np.int64)
    for i in range(data.num_clients):
        labels = np.ravel(data.client(i)["y"])
        counts[i] = np.bincount(labels, minlength=data.num_classes)
    return counts


def plot_labels(data: FederatedDataset, path: str | Path) -> Path:
    """Draws each client's number of examples and its share of every class.

    Of more than 500 clients every k-th is drawn. The plot shows private data: it is for whoever
    holds all of them, as in a simulation.

    Args:
        data: with classes.
        path: of the picture; the suffix says the format: .svg, .png, .pdf.

    Returns:
        The path.

    Raises:
        DataError: the data have no classes, or the suffix is none of a picture.
        MissingExtraError: matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise DataError("plot", str(path), "a file name that ends in .svg, .png or .pdf")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("a plot of labels", "report") from error
    step = -(-data.num_clients // MAX_CLIENTS)
    counts = label_counts(data)[::step]
    clients = np.arange(len(counts)) * step
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(1, 2.4))
    upper.bar(clients, counts.sum(axis=1), width=step, color="#2f6690")
    upper.set_ylabel("labels")
    # Steps half way between clients, and half a step beyond the first and the last.
    edges = np.concatenate([[-step / 2], clients, [clients[-1] + step / 2]])
    classes = range(counts.shape[1])
    few = len(classes) <= 10
    colours = matplotlib.colormaps["tab10" if few else "turbo"]
    lower.stackplot(
        edges,
        np.pad(shares, ((1, 1), (0, 0)), mode="edge").T,
        step="mid",
        labels=[str(label) for label in classes],
        colors=[colours(label if few else label / (len(classes) - 1)) for label in classes],
    )
    lower.set(ylabel="share of each class", ylim=(0, 1), xlim=(edges[0], edges[-1]))
    lower.set_xlabel("client" if step == 1 else f"client, 1 in {step}")
    if len(classes) <= 20:
        figure.legend(loc="outside right upper", frameon=False)
    figure.suptitle(f"{data.name}: {data.num_clients:,} clients, {data.num_examples:,} examples")
    figure.savefig(path)
    return path
