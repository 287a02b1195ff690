"""The errors and warnings a user can meet; each says what, which value, and the remedy."""

from __future__ import annotations


class PanclusterError(Exception):
    """Base class of every error that is the input's, not the program's, fault."""


class InputError(PanclusterError):
    """An option, a sample sheet or a table does not make sense."""


class SlideError(PanclusterError):
    """A slide is missing, unreadable or not calibrated."""


class ProjectError(PanclusterError):
    """A project folder is missing, locked, newer than the program, or lacks a needed step."""


class RegistrationError(PanclusterError):
    """Two sections could not be brought into one frame."""


class TrainingError(PanclusterError):
    """The network could not be trained on what it was given."""


class ClusterDoubt(UserWarning):
    """Clusters may be something else than tissues."""
