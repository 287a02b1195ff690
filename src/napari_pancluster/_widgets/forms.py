"""Forms made from the pydantic configs: label, range and tooltip are written once, there."""

from __future__ import annotations

from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from magicgui.widgets import CheckBox, ComboBox, Container, FloatSpinBox, SpinBox
from magicgui.widgets.bases import ValueWidget
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QLabel, QWidget

from napari_pancluster.core.errors import InputError

Config = TypeVar("Config", bound=BaseModel)
_AUTOMATIC = "automatic"
_LARGEST = 1_000_000
_SMALLEST_STEP = 1e-4


class Form:
    """The fields of a config as a magicgui container.

    Parameters
    ----------
    model
        The config.
    names
        Fields to show, in order.
    presets
        Values that differ from the config's own defaults.
    """

    def __init__(
        self,
        model: type[BaseModel],
        names: tuple[str, ...],
        presets: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        widgets = [_widget(name, model.model_fields[name]) for name in names]
        self.container = Container(widgets=widgets, labels=False)
        self.native = _aligned(self.container)
        for name, value in (presets or {}).items():
            if name in names:
                self[name].value = value

    def __getitem__(self, name: str) -> ValueWidget[Any]:
        """Return the widget of a field."""
        return self.container[name]

    @property
    def given(self) -> dict[str, Any]:
        """Values of the fields; "automatic" where the field is left to the program."""
        return {
            w.name: _read(w, self._model.model_fields[w.name])
            for w in self.container
            if isinstance(w, ValueWidget)
        }


def read_config(model: type[Config], *forms: Form) -> Config:
    """Return the config that the fields of some forms make.

    Raises
    ------
    InputError
        If they do not fit together.
    """
    given: dict[str, Any] = {}
    for form in forms:
        given |= form.given
    try:
        return model(**given)
    except ValidationError as error:
        text = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"{text}.") from error


def _aligned(container: Container[Any]) -> QWidget:
    """Return the fields in two columns; magicgui's own labels do not line up inside a dock."""
    native = QWidget()
    layout = QFormLayout(native)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    for widget in container:
        if isinstance(widget, CheckBox):
            layout.addRow(widget.native)
            continue
        label = QLabel(widget.label)
        label.setBuddy(widget.native)
        label.setToolTip(widget.tooltip)
        layout.addRow(label, widget.native)
    return native


def _widget(name: str, field: FieldInfo) -> ValueWidget[Any]:
    kind, automatic = _kind(field.annotation)
    options: dict[str, Any] = {
        "name": name,
        "label": field.title or name,
        "tooltip": field.description or "",
    }
    if get_origin(kind) is Literal:
        widget: ValueWidget[Any] = ComboBox(
            choices=list(get_args(kind)), value=field.default, **options
        )
    elif kind is bool:
        widget = CheckBox(value=field.default, **options)
    else:
        widget = _number(kind, field, automatic, options)
    widget.native.setAccessibleName(str(options["label"]))
    return widget


def _number(
    kind: Any, field: FieldInfo, automatic: bool, options: dict[str, Any]
) -> ValueWidget[Any]:
    low, high = _bounds(field)
    value = field.default
    if kind is int and not automatic:
        widget: ValueWidget[Any] = SpinBox(min=int(low), max=int(high), value=value, **options)
    elif kind is int:
        # Only the double spin box can say "automatic"; one below the range stands for it.
        low = int(low) - 1
        value = value if isinstance(value, int) else low
        widget = FloatSpinBox(min=low, max=high, step=1, value=value, **options)
        widget.native.setDecimals(0)
    else:
        low = 0.0 if automatic else low
        step = 10 ** -_decimals(field.default)
        value = low if automatic and value is None else value
        widget = FloatSpinBox(min=low, max=high, step=step, value=value, **options)
        widget.native.setDecimals(max(2, _decimals(field.default)))
    if automatic:
        widget.native.setSpecialValueText(_AUTOMATIC)
    # A wheel that scrolls the panel must not change numbers on its way.
    widget.native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    return widget


def _decimals(value: Any) -> int:
    text = f"{value:.6f}".rstrip("0") if isinstance(value, float) else "0.00"
    return max(1, len(text.partition(".")[2]))


def _read(widget: ValueWidget[Any], field: FieldInfo) -> Any:
    kind, automatic = _kind(field.annotation)
    if automatic and widget.value == widget.min:
        return field.default
    return int(widget.value) if kind is int else widget.value


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Return the plain type of a field, and whether it can be left to the program."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        parts = get_args(annotation)
        plain = [p for p in parts if p is not NoneType and get_origin(p) is not Literal]
        return _kind(plain[0])[0], True
    return annotation, False


def _bounds(field: FieldInfo) -> tuple[float, float]:
    low: Any = 0.0
    high: Any = float(_LARGEST)
    constraints = list(field.metadata)
    for part in get_args(field.annotation):
        constraints += getattr(part, "__metadata__", ())
        constraints += [
            c for a in getattr(part, "__metadata__", ()) for c in getattr(a, "metadata", ())
        ]
    for constraint in constraints:
        if isinstance(constraint, Ge):
            low = constraint.ge
        elif isinstance(constraint, Gt):
            low = constraint.gt
            low += 1 if isinstance(field.default, int) else _SMALLEST_STEP
        elif isinstance(constraint, Le):
            high = constraint.le
    return float(low), float(high)
