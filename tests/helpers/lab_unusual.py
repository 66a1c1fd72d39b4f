"""What the Lab's unusual.js compares pictures with: the same statistics in numpy."""

import numpy as np


def _log_contrast(values, axes):
    return np.log(np.maximum(values.std(axes), 1e-4))


def statistics(images: np.ndarray) -> np.ndarray:
    """Of images [n, 3, 32, 32] in [0, 1]: [n, 11], in the order of unusual.js."""
    images = images.astype(np.float64)
    grey = images.mean(1)
    blocks = grey.reshape(len(grey), 8, 4, 8, 4)
    detail = np.log(blocks.std((2, 4)) + 1e-3)
    plane = (1, 2)
    return np.stack(
        [
            grey.mean(plane),
            _log_contrast(grey, plane),
            _log_contrast(np.diff(grey, axis=2), plane),
            _log_contrast(np.diff(grey, axis=1), plane),
            images.mean((2, 3)).std(1),
            grey.max(plane),
            grey.min(plane),
            _log_contrast(images - grey[:, None], (1, 2, 3)),
            _log_contrast(blocks.mean((2, 4)), plane),
            detail.mean(plane),
            detail.std(plane),
        ],
        axis=1,
    )


def distances(images: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Mahalanobis distances [n]."""
    away = statistics(images) - mean
    return np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away))


def reference(images: np.ndarray) -> dict:
    """What `unlike` takes, from the usual images; a hundred and one of their distances."""
    found = statistics(images)
    mean, inverse = found.mean(0), np.linalg.inv(np.cov(found.T))
    own = np.quantile(distances(images, mean, inverse), np.linspace(0, 1, 101))
    return {"mean": mean.tolist(), "inverse": inverse.tolist(), "distances": own.tolist()}
