"""Clusters on the tissue: the map lies where the tissue lies, whatever patch and stride."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch

from napari_pancluster.core.clustering import cluster, encode
from napari_pancluster.core.config import MapConfig
from napari_pancluster.core.errors import InputError, SlideError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.patches import PatchGrid, make_grid
from napari_pancluster.core.pipeline.encoding import checkpoint_of
from napari_pancluster.core.pipeline.exporting import export
from napari_pancluster.core.pipeline.mapping import map_clusters
from napari_pancluster.core.pipeline.opening import open_stack
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.stack import Block, SlideStack
from napari_pancluster.core.tissue_mask import TissueMask


def edge_of(labels: np.ndarray) -> float:
    """Return the column, in cells, that parts the two labels best."""
    left = np.bincount(labels[:, : labels.shape[1] // 4].ravel(), minlength=3).argmax()
    is_left = (labels == left).mean(0)
    gain = [is_left[:c].sum() + (1 - is_left[c:]).sum() for c in range(len(is_left) + 1)]
    return float(np.argmax(gain))


@pytest.mark.parametrize(("patch_px", "within"), [(64, 16), (128, 48)])
def test_the_edge_between_two_tissues_lies_where_it_is(
    two_tissues: Path,
    make_project: Callable[..., Project],
    tiny: dict[str, Any],
    tmp_path: Path,
    patch_px: int,
    within: int,
) -> None:
    project = make_project(HE=two_tissues)
    options = {**tiny, "epochs": 8, "width": 16, "learning_rate": 0.002}
    run(train_network(project, {**options, "k": 2, "patch_px": patch_px}))
    for stride in (16, 32, 50, 100):
        run(map_clusters(project, MapConfig(stride_px=stride)))
        file = run(export(project, tmp_path / "out", ["ome-tiff"]))["files"][0]
        with tifffile.TiffFile(file) as tiff:
            labels = tiff.asarray()
            assert f'PhysicalSizeX="{stride * 0.5}"' in tiff.ome_metadata
        assert labels.shape == (-(-768 // stride), -(-1900 // stride))
        assert labels.dtype == np.uint8 and set(np.unique(labels)) == {1, 2}
        # A patch over the edge belongs to either side: a part of it, or the cell's own width.
        assert edge_of(labels) * stride == pytest.approx(1000, abs=max(stride, within))


def test_latents_do_not_depend_on_how_the_grid_is_read(
    two_tissues: Path, make_project: Callable[..., Project], tiny: dict[str, Any]
) -> None:
    project = make_project(HE=two_tissues)
    summary = run(train_network(project, {**tiny, "k": 2, "epochs": 1}))
    network = checkpoint_of(project, summary["run"]).network()
    stack = open_stack(project, project.state.cases[0])
    everywhere = TissueMask(np.ones((48, 119), bool), 8.0)
    grid = make_grid("block", stack.extent, everywhere, mpp=0.5, patch_px=64, stride_px=32)
    latents = run(encode(stack, grid, network)).values
    row = len(grid.index) // 2 + 5
    centre = grid.centres[row]
    block = stack.read(Region(centre[0] - 16, centre[1] - 16, 32, 32), 0.5)
    with torch.inference_mode():
        x = network.normalise(torch.from_numpy(block.od[None]), torch.ones(1, 1))
        alone = network.encode(x)[1].numpy()[0]
    assert np.allclose(latents[row], alone, atol=1e-3)


@pytest.fixture
def many_blocks(
    two_tissues: Path, make_project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> tuple[SlideStack, PatchGrid, PatchNetwork]:
    """A grid that is read in eight blocks, and a network that was not trained."""
    monkeypatch.setattr("napari_pancluster.core.clustering._BLOCK_PX", 480)
    project = make_project(HE=two_tissues)
    stack = open_stack(project, project.state.cases[0])
    tissue = TissueMask(np.ones((48, 119), bool), 8.0)
    grid = make_grid("block", stack.extent, tissue, mpp=0.5, patch_px=64, stride_px=24)
    torch.manual_seed(0)
    return stack, grid, PatchNetwork(1, (2,), width=8, latent=16).eval()


def test_latents_do_not_hang_on_the_number_of_threads(
    many_blocks: tuple[SlideStack, PatchGrid, PatchNetwork],
) -> None:
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(run(encode(*many_blocks)))
        assert torch.get_num_threads() == threads
    alone, together = found
    assert (alone.values == together.values).all()
    assert (alone.present == together.present).all() and alone.present.any()
    assert (alone.od_mean == together.od_mean).all() and (alone.od_std == together.od_std).all()


def test_threads_that_encode_end_when_nobody_wants_the_map(
    many_blocks: tuple[SlideStack, PatchGrid, PatchNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    begun, shows = [], Block.shows

    def slow(*given: Any) -> np.ndarray:
        begun.append(time.perf_counter())
        time.sleep(0.05)
        return shows(*given)

    monkeypatch.setattr(Block, "shows", slow)
    task = encode(*many_blocks)
    while next(task).done == 0:
        pass
    task.close()
    closed = time.perf_counter()
    assert torch.get_num_threads() == 2
    for thread in threading.enumerate():
        if thread.name.startswith("mapping"):
            thread.join(10)
    # A batch that was about to begin may.
    assert sum(at > closed for at in begun) <= 2


def test_a_slide_that_breaks_in_a_block_ends_the_map(
    many_blocks: tuple[SlideStack, PatchGrid, PatchNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(2)
    stack, grid, network = many_blocks
    read = SlideStack.read

    def broken(self: SlideStack, region: Region, mpp: float) -> Block:
        if region.left > 400:
            raise SlideError("HE.tif cannot be read here.")
        return read(self, region, mpp)

    monkeypatch.setattr(SlideStack, "read", broken)
    with pytest.raises(SlideError, match="cannot be read here"):
        run(encode(stack, grid, network))
    assert torch.get_num_threads() == 2


def test_probabilities_are_those_of_the_head(
    two_tissues: Path, make_project: Callable[..., Project], tiny: dict[str, Any]
) -> None:
    project = make_project(HE=two_tissues)
    summary = run(train_network(project, {**tiny, "k": 3, "epochs": 1}))
    checkpoint = checkpoint_of(project, summary["run"])
    values = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    found = cluster(Latents(values), checkpoint, 3)
    assert found.probabilities.shape == (50, 3)
    assert np.allclose(found.probabilities.sum(1), 1, atol=1e-5)
    assert (found.certainty == found.probabilities.max(1)).all()
    with pytest.raises(InputError, match="holds k = 2 to 4, not 9"):
        cluster(Latents(values), checkpoint, 9)


def test_label_images_have_background_0_and_labels_from_1() -> None:
    tissue = TissueMask(np.pad(np.ones((5, 5), bool), ((0, 5), (0, 5))), 8.0)
    grid = make_grid("a", Region(0, 0, 80, 80), tissue, mpp=1, patch_px=16, stride_px=8)
    assignments = np.arange(len(grid.index), dtype=np.uint8) % 3
    found = Clustering(3, assignments, np.eye(3, dtype=np.float32)[assignments])
    image = found.label_image(grid, slice(None))
    assert image.dtype == np.uint8 and image.shape == (10, 10)
    assert (image[5:] == 0).all() and (image[:, 5:] == 0).all()
    assert set(np.unique(image[:5, :5])) == {1, 2, 3}
