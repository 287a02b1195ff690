"""UMAP of the latents: fitted on a part, the rest placed beside their nearest neighbours."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from io import StringIO
from typing import Self

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.beside import Beat, Beside
from napari_pancluster.core.config import EmbedConfig
from napari_pancluster.core.progress import Progress, Task

_NEIGHBOURS_TO_PLACE = 5
# Patches placed between two looks at whether the user cancelled.
_PLACED_AT_ONCE = 4_000
_PCA_ROWS = 50_000
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Embedding:
    """A point in the plane for every row it names.

    Attributes
    ----------
    coords
        (M, 2) float32.
    rows
        (M,) rows of the patch table.
    """

    coords: NDArray[np.float32]
    rows: NDArray[np.int64]


def embed(latents: NDArray[np.float32], config: EmbedConfig) -> Task[Embedding]:
    """Return the UMAP of all latents (N, D)."""
    yield Progress("Loading UMAP")
    rng = np.random.default_rng(config.seed)
    count = len(latents)
    fitted = np.sort(rng.choice(count, min(count, config.fitted), replace=False))
    coords = np.zeros((count, 2), np.float32)
    known = latents[fitted]
    with Beside(lambda beat: _umap(known, config, beat)) as fitting:
        coords[fitted] = yield from fitting.watch("Computing UMAP")
    rest = np.setdiff1d(np.arange(count), fitted)
    for start in range(0, len(rest), _PLACED_AT_ONCE):
        yield Progress("Placing the other patches", start, len(rest))
        rows = rest[start : start + _PLACED_AT_ONCE]
        coords[rows] = _place(known, coords[fitted], latents[rows])
    return Embedding(coords, np.arange(count))


def pca(latents: NDArray[np.float32]) -> Embedding:
    """Return the first two principal components of all latents (N, D): what shows at once.

    The axes are found on at most 50,000 rows.
    """
    step = max(1, -(-len(latents) // _PCA_ROWS))
    some = latents[::step].astype(np.float64)
    mean = some.mean(0)
    _, vectors = np.linalg.eigh((some - mean).T @ (some - mean))
    axes = vectors[:, ::-1][:, :2]
    # The sign of an axis is arbitrary; fixed, the picture is the same on every machine.
    axes = axes * np.where(axes[np.abs(axes).argmax(0), [0, 1]] < 0, -1, 1)
    coords = latents @ axes.astype(np.float32) - (mean @ axes).astype(np.float32)
    return Embedding(np.asarray(coords, np.float32), np.arange(len(latents)))


def _umap(latents: NDArray[np.float32], config: EmbedConfig, beat: Beat) -> NDArray[np.float32]:
    if len(latents) <= 3:
        return np.zeros((len(latents), 2), np.float32)
    import warnings

    # A fit that was given up may still be running; some of numba's thread pools bear one user only.
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        beat(0, 0)
        # UMAP says that a seed means one thread; that is what a seed is for.
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        # … and that its neural variant, unused here, is not installed.
        warnings.filterwarnings("ignore", category=ImportWarning)
        import umap

        # UMAP's own defaults, said aloud so that progress has a total.
        epochs = 500 if len(latents) <= 10_000 else 200
        model = umap.UMAP(
            n_neighbors=min(config.neighbors, len(latents) - 1),
            min_dist=config.min_dist,
            random_state=config.seed,
            # The spectral start needs more points than dimensions it solves for.
            init="spectral" if len(latents) > 50 else "random",
            n_epochs=epochs,
            tqdm_kwds={
                "disable": False,
                "file": StringIO(),
                "miniters": 1,
                "mininterval": _AskedEveryEpoch(beat, epochs),
                "delay": float("inf"),
            },
        )
        return np.asarray(model.fit_transform(latents), np.float32)


class _AskedEveryEpoch(float):
    """The least interval between two drawings of UMAP's bar, which it never draws.

    UMAP has no callback. Its bar asks after every epoch whether this interval has passed: a place
    where epochs can be counted and the fit can be stopped. An exception while the bar is drawn
    would leave its lock taken for ever, and the next bar would wait for it.
    """

    def __new__(cls, beat: Beat, epochs: int) -> Self:
        """Return the interval for a fit of so many epochs."""
        return super().__new__(cls, 0.0)

    def __init__(self, beat: Beat, epochs: int) -> None:
        self._beat, self._epochs, self._done = beat, epochs, 0

    def __le__(self, other: float) -> bool:
        """Count an epoch; never is it time to draw."""
        self._done += 1
        self._beat(self._done, self._epochs)
        return False


def _place(
    known: NDArray[np.float32], coords: NDArray[np.float32], new: NDArray[np.float32]
) -> NDArray[np.float32]:
    from sklearn.neighbors import NearestNeighbors

    finder = NearestNeighbors(n_neighbors=min(_NEIGHBOURS_TO_PLACE, len(known))).fit(known)
    distance, index = finder.kneighbors(new)
    weight = 1 / np.maximum(distance, 1e-6)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray((coords[index] * weight[..., None]).sum(axis=1), np.float32)
