"""Rows of a panel: buttons beside each other, and fields behind their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QPushButton, QWidget


def push_button(text: str, tip: str, call: Callable[[], object] | None = None) -> QPushButton:
    """Return a button with a tooltip, which calls without arguments."""
    button = QPushButton(text)
    button.setToolTip(tip)
    if call is not None:
        button.clicked.connect(lambda _=False: call())
    return button


def button_row(*buttons: tuple[str, str, Callable[[], object]]) -> QHBoxLayout:
    """Return buttons (text, tooltip, what they call) beside each other."""
    row = QHBoxLayout()
    for text, tip, call in buttons:
        row.addWidget(push_button(text, tip, call))
    return row


def labelled_rows(fields: Iterable[tuple[str, QWidget, str]]) -> QFormLayout:
    """Return fields (label, widget, tooltip) below each other."""
    form = QFormLayout()
    for label, widget, tip in fields:
        widget.setToolTip(tip)
        widget.setAccessibleName(label)
        form.addRow(label, widget)
    return form
