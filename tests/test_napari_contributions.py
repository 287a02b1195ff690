"""What the manifest promises: slides and samples as lazy layers in µm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawing import texture, write_slide
from npe2 import PluginManifest

import napari_pancluster
from napari_pancluster._reader import get_reader
from napari_pancluster._sample_data import open_liver, open_pancreas
from napari_pancluster._writer import write_labels
from napari_pancluster.core.errors import InputError


def test_every_command_of_the_manifest_can_be_imported() -> None:
    manifest = PluginManifest.from_file(Path(napari_pancluster.__file__).parent / "napari.yaml")
    manifest.validate_imports()
    assert {s.key for s in manifest.contributions.sample_data or ()} == {"liver", "pancreas"}


@pytest.mark.parametrize(
    ("opened", "count", "mpp"), [(open_liver, 3, 2.0), (open_pancreas, 2, 4.0)]
)
def test_samples_open_as_lazy_pyramids(opened, count: int, mpp: float) -> None:  # type: ignore[no-untyped-def]
    layers = opened()
    assert len(layers) == count
    for data, options, kind in layers:
        assert kind == "image" and options["multiscale"] and options["rgb"] and not options["cache"]
        assert options["scale"] == (mpp, mpp) and options["units"] == ("um", "um")
        assert "nominal" in options["name"]
        assert len(data) >= 4 and data[0].shape[0] > data[1].shape[0]


def test_the_writer_keeps_labels_and_pixel_size(tmp_path: Path) -> None:
    from napari.layers import Labels

    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    layer = Labels(labels, scale=(16.0, 16.0), units=("um", "um"))
    target = tmp_path / "map.ome.tif"
    manifest = PluginManifest.from_file(Path(napari_pancluster.__file__).parent / "napari.yaml")
    (writer,) = manifest.contributions.writers or ()
    assert writer.layer_type_constraints()[0].layer_type.value == "labels"
    data, attributes, _ = layer.as_layer_data_tuple()
    assert write_labels(str(target), data, attributes) == [str(target)]
    with tifffile.TiffFile(target) as tiff:
        assert np.array_equal(tiff.asarray(), labels)
        assert 'PhysicalSizeX="16.0"' in (tiff.ome_metadata or "")
    bare = write_labels(str(tmp_path / "bare.ome.tif"), labels, {"scale": (2, 2), "units": None})
    with tifffile.TiffFile(bare[0]) as tiff:
        assert "PhysicalSize" not in (tiff.ome_metadata or "")
    with pytest.raises(InputError, match="3 dimensions"):
        write_labels(str(tmp_path / "stack.ome.tif"), labels[None], {})


def test_a_folder_that_is_no_project_is_left_to_others(tmp_path: Path) -> None:
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(tmp_path / "block.pancluster")) is not None


def test_the_reader_gives_layers_napari_takes(tmp_path: Path) -> None:
    from napari.layers import Layer

    path = write_slide(tmp_path / "he.ome.tif", texture((600, 700), coarse=True), 0.5)
    reader = get_reader(str(path))
    assert reader is not None
    (layer_data,) = reader([str(path)])
    layer = Layer.create(*layer_data)
    assert layer.name == "he" and tuple(layer.scale) == (0.5, 0.5)
    assert layer.data[0].shape == (600, 700, 3)
