"""Registration: a moving section is brought into the frame of the fixed one."""

from napari_pancluster.core.registration.landmarks import Landmarks, read_landmarks
from napari_pancluster.core.registration.pair import register_pair
from napari_pancluster.core.registration.report import Registration, RegistrationReport

__all__ = [
    "Landmarks",
    "Registration",
    "RegistrationReport",
    "read_landmarks",
    "register_pair",
]
