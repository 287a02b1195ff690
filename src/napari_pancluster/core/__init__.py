"""The science without a window: neither Qt nor napari is imported below this package."""
