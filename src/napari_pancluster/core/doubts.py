"""What to doubt about the clusters of a training, for every k it holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.checkpoint import Checkpoint
from napari_pancluster.core.clustering import cluster
from napari_pancluster.core.dataset import PatchStore
from napari_pancluster.core.devices import choose_device
from napari_pancluster.core.latents import Latents
from napari_pancluster.core.middles import evenly, middle_latents
from napari_pancluster.core.progress import Task
from napari_pancluster.core.suspicions import patch_facts, suspicions


def doubts(
    checkpoint: Checkpoint, store: PatchStore, case_id: NDArray[np.int32], cases: tuple[str, ...]
) -> Task[dict[int, tuple[str, ...]]]:
    """Return, for every k, sentences about clusters that may not be tissues.

    Parameters
    ----------
    checkpoint
        The trained network.
    store
        The crops it was trained on.
    case_id
        (M,) number of the case of each.
    cases
        Names of the cases.
    """
    network = checkpoint.network().to(choose_device(checkpoint.config["device"]))
    # Those that lack a stain are on the map, too.
    rows = evenly(np.arange(len(store)))
    values = yield from middle_latents(network, store, rows)
    facts = patch_facts(
        PatchStore(store.codes[rows], store.present[rows], store.patch_px),
        case_id[rows],
        stains=checkpoint.stains,
    )
    latents = Latents(values, store.present[rows])
    return {
        k: suspicions(cluster(latents, checkpoint, k).assignments, k, facts, cases)
        for k in checkpoint.ks
    }
