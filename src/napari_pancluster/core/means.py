"""k-means that can be cancelled between its starts."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.progress import Progress, Task

if TYPE_CHECKING:
    from sklearn.cluster import KMeans


def best_means(
    values: NDArray[np.floating],
    k: int,
    *,
    starts: int,
    seed: int,
    progress: Progress,
    iterations: int = 300,
) -> Task[KMeans]:
    """Return the best fit of several starts; each ends in a local optimum of its own.

    Parameters
    ----------
    values
        (N, D).
    seed
        Each seed has starts of its own.
    progress
        Told before every start.
    iterations
        Most of one start.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    fits = []
    for start in range(starts):
        yield progress
        means = KMeans(k, n_init=1, max_iter=iterations, random_state=starts * seed + start)
        with warnings.catch_warnings():
            # Patches that are copies of each other: fewer means are found, and that is fine.
            warnings.simplefilter("ignore", ConvergenceWarning)
            fits.append(means.fit(values))
    return min(fits, key=lambda fit: float(fit.inertia_))
