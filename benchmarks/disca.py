"""A narrow re-implementation of deep iterative clustering, for comparison: no labels, K estimated.

Zeng et al. 2023, PNAS 120:e2213149120 ("DISCA"): a convolutional network measures boxes, a mixture of Gaussians groups
the features, and the network learns the groups as if they were classes, again and again. The network takes the largest
value of every channel over the whole box, once after every layer ("you only pool once", YOPO), so that it makes little
of where and how a particle lies. In every round the number of groups is the one with the least Davies-Bouldin index
(Davies & Bouldin 1979, IEEE TPAMI 1:224) in units of the spread inside the groups (distortion; Sugar & James 2003, JASA
98:750), and the groups are numbered like those of the round before (Hungarian matching).

Narrow: written from the description, with a strided first layer and few channels, about 0.1 GMAC a box of 32³ in place
of 30, learning in bfloat16; boxes of one voxel size; turns and noise as augmentation (a turned box has its missing
wedge elsewhere).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.metrics import davies_bouldin_score
from torch import Tensor, nn

from tomotif.core.geometry import random_rotations
from tomotif.ops.clustering import mixture
from tomotif.ops.fsc import soft_sphere
from tomotif.ops.rotate import rotate_volumes


@dataclass(frozen=True)
class DiscaSettings:
    """How a narrow DISCA is trained.

    Attributes
    ----------
    channels
        Of the layers; the first has 5³ windows two voxels apart, the others 3³.
    features
        Length of a feature vector.
    components
        Principal components of the features that are grouped.
    counts, fewest
        Numbers of groups that are tried in every round, as far as there are ``fewest`` boxes to a group on average.
    rounds
        Of grouping and learning.
    epochs
        Passes over the boxes in each round.
    noise
        Largest standard deviation of the noise that is added to a box of standard deviation 1.
    """

    channels: tuple[int, ...] = (24, 32, 40, 48, 64)
    features: int = 32
    components: int = 16
    counts: tuple[int, ...] = tuple(range(2, 17))
    fewest: int = 10
    rounds: int = 20
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 1e-3
    label_smoothing: float = 0.1
    noise: float = 0.5
    seed: int = 0


class Yopo(nn.Module):
    """Layers without pooling between them; the largest value of every channel of every layer makes the features."""

    def __init__(self, channels: tuple[int, ...], features: int) -> None:
        super().__init__()
        pairs = zip((1, *channels), channels, strict=False)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(taken, made, 3 if i else 5, stride=1 if i else 2), nn.BatchNorm3d(made), nn.ELU(inplace=True)
            )
            for i, (taken, made) in enumerate(pairs)
        )
        self.features = nn.Sequential(nn.Linear(sum(channels), features), nn.BatchNorm1d(features))

    def forward(self, boxes: Tensor) -> Tensor:
        """Features (n, features) of boxes (n, 1, d, d, d)."""
        seen, largest = boxes, []
        for layer in self.layers:
            seen = layer(seen)
            largest.append(seen.amax(dim=(2, 3, 4)))
        return self.features(torch.cat(largest, dim=1))


def disca(boxes: NDArray[np.floating], settings: DiscaSettings = DiscaSettings()) -> NDArray[np.int64]:
    """Groups of boxes, without labels.

    Parameters
    ----------
    boxes
        Bright, z-scored, shape (n, d, d, d).
    settings
        How to learn.

    Returns
    -------
    NDArray[int64], shape (n,)
        Index of the group of each box after the last round.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(settings.seed)
    sphere = torch.from_numpy(soft_sphere(boxes.shape[1:], boxes.shape[1] / 2 - 3, 3.0)).float()
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = Yopo(settings.channels, settings.features).to(device, memory_format=torch.channels_last_3d)
        labels = np.zeros(len(boxes), dtype=np.int64)
        head = nn.Linear(settings.features, 1)
        for number in range(settings.rounds + 1):
            found = grouped(features_of(network, boxes, sphere), settings)
            labels = matched(found, labels)
            if number == settings.rounds:
                break
            if head.out_features != labels.max() + 1:
                head = nn.Linear(settings.features, int(labels.max()) + 1).to(device)
            learn(network, head, boxes, labels, sphere, settings, rng)
    return labels


def grouped(features: NDArray[np.float32], settings: DiscaSettings) -> NDArray[np.int64]:
    """Groups of features, as many as the criterion says."""
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    parts = PCA(min(settings.components, *scaled.shape), random_state=settings.seed).fit_transform(scaled)
    counts = [count for count in settings.counts if count <= max(2, len(parts) // settings.fewest)]
    found = [mixture(parts, count, settings.seed).predict(parts) for count in counts]
    best = int(np.argmin([distortion_index(parts, labels) for labels in found]))
    return np.unique(found[best], return_inverse=True)[1].astype(np.int64)


def distortion_index(features: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Davies-Bouldin index with distances in units of the mean spread inside the groups; lower is better.

    >>> rng = np.random.default_rng(0)
    >>> points = np.concatenate([rng.standard_normal((50, 2)), rng.standard_normal((50, 2)) + 10])
    >>> true, halves = np.repeat([0, 1], 50), np.tile([0, 1], 50)
    >>> distortion_index(points, true) < distortion_index(points, halves)
    True
    """
    names, sizes = np.unique(labels, return_counts=True)
    if len(names) < 2:
        return np.inf
    residual = (
        features - np.stack([features[labels == name].mean(axis=0) for name in names])[np.searchsorted(names, labels)]
    )
    spread = residual.T @ residual / max(len(features) - len(sizes), 1)
    spread += 1e-6 * np.trace(spread) / len(spread) * np.eye(len(spread))
    whitened = np.linalg.solve(np.linalg.cholesky(spread), features.T).T
    return float(davies_bouldin_score(whitened, labels))


def matched(found: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups numbered so that as many boxes as can be keep their number.

    >>> matched(np.array([1, 1, 0, 2]), np.array([0, 0, 1, 1])).tolist()
    [0, 0, 1, 2]
    """
    kinds = int(max(found.max(), before.max())) + 1
    both = np.zeros((kinds, kinds), dtype=np.int64)
    np.add.at(both, (found, before), 1)
    new = linear_sum_assignment(both, maximize=True)[1][found]
    return np.unique(new, return_inverse=True)[1].astype(np.int64)  # without gaps, in the same order


@torch.inference_mode()
def features_of(network: Yopo, boxes: NDArray[np.floating], sphere: Tensor) -> NDArray[np.float32]:
    """Features of all boxes as they are."""
    network.eval()
    device = next(network.parameters()).device
    parts = np.array_split(np.arange(len(boxes)), -(-len(boxes) // 64))
    given = ((torch.from_numpy(boxes[part]).float() * sphere)[:, None].to(device) for part in parts)
    return torch.cat([network(part).cpu() for part in given]).numpy()


def learn(
    network: Yopo,
    head: nn.Linear,
    boxes: NDArray[np.floating],
    labels: NDArray[np.int64],
    sphere: Tensor,
    settings: DiscaSettings,
    rng: np.random.Generator,
) -> None:
    """Some passes over turned and noisier boxes, with the groups as classes."""
    network.train()
    device = next(network.parameters()).device
    weights = [*network.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=1e-4)
    loss = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    for rows in batches(len(labels), settings, rng):
        turned = rotate_volumes(torch.from_numpy(boxes[rows]).float() * sphere, random_rotations(len(rows), rng))
        level = torch.from_numpy(rng.uniform(0, settings.noise, len(rows)).astype(np.float32))[:, None, None, None]
        turned += level * torch.from_numpy(rng.standard_normal(turned.shape, dtype=np.float32)) * sphere
        wanted = torch.from_numpy(labels[rows]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            found = head(network(turned[:, None].to(device)))
        error = loss(found.float(), wanted)
        optimiser.zero_grad()
        error.backward()
        optimiser.step()


def batches(count: int, settings: DiscaSettings, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Rows of every step of a round."""
    for _ in range(settings.epochs):
        order = rng.permutation(count)
        yield from np.array_split(order, max(1, round(count / settings.batch_size)))
