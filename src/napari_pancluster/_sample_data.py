"""npe2 sample data: the packaged cases."""

from __future__ import annotations

from napari_pancluster._layers import LayerData, slide_layer
from napari_pancluster._reader import main_widget
from napari_pancluster.samples import Sample, liver, pancreas


def open_liver() -> list[LayerData]:
    """Return the liver sections as layers, not yet registered."""
    return _layers(liver())


def open_pancreas() -> list[LayerData]:
    """Return the pancreas sections as layers, not yet registered."""
    return _layers(pancreas())


def _layers(sample: Sample) -> list[LayerData]:
    from napari_pancluster.core.slide import open_slide

    main_widget()
    layers = []
    for number, (stain, path) in enumerate(sample.slides.items()):
        data, options, kind = slide_layer(
            open_slide(path).with_mpp(sample.mpp),
            f"{stain} ({sample.mpp:g} µm/px nominal)",
            stain=stain,
            nominal=True,
            sample=sample.name,
        )
        # Not registered yet, the others would only hide the first.
        layers.append((data, {**options, "visible": number == 0}, kind))
    return layers
