"""napari-pancluster: unsupervised tissue clusters from serial, differently stained sections."""

__version__ = "0.1.0"
