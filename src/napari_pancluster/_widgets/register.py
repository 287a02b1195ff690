"""The panel Register: how every stain is brought into one frame, and how well it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari.viewer import Viewer
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QLabel, QTableWidget, QTableWidgetItem

from napari_pancluster._session import Session
from napari_pancluster._widgets.compare_box import CompareBox
from napari_pancluster._widgets.forms import Form
from napari_pancluster._widgets.jobs import Jobs
from napari_pancluster._widgets.rows import push_button
from napari_pancluster._widgets.steps import StepPanel
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.pipeline.registering import registration_results

_REGISTER_BASIC = ("deformable",)
_RESULT = ("Case", "Stain", "Status", "Turned", "Overlap")
_RESULT_TIPS = (
    "",
    "",
    "ok, doubtful or failed; the tooltip of a line says why.",
    "Degrees counter-clockwise, and whether the section was flipped.",
    "Dice overlap of the tissue masks after registration; 1 is perfect.",
)


class RegisterPanel(StepPanel):
    """Registers every stain onto the reference."""

    def __init__(self, viewer: Viewer, session: Session, work: Work, jobs: Jobs) -> None:
        self.compare = CompareBox(viewer, session)
        super().__init__(session, work, jobs)

    def close_session(self) -> None:
        """Stop listening."""
        self.compare.close_session()
        super().close_session()

    def refresh(self) -> None:
        """Show what was registered, and how well."""
        project = self._session.project
        self._go.setEnabled(self._idle)
        results = (
            registration_results(project, [c.name for c in project.state.cases]) if project else []
        )
        self.table.setRowCount(len(results))
        for row, result in enumerate(results):
            for column, text in enumerate(_result_line(result)):
                item = QTableWidgetItem(text)
                item.setToolTip(result["reason"])
                self.table.setItem(row, column, item)
        self.table.setVisible(bool(results))
        doubts = [
            f"{r['stain']} of {r['case']}: {r['status']}. {r['reason']}"
            for r in results
            if r["status"] != "ok"
        ]
        self._doubts.setText("\n".join(doubts))
        self._doubts.setVisible(bool(doubts))

    def _build(self) -> None:
        fields = tuple(RegisterConfig.model_fields)
        self.form = Form(RegisterConfig, _REGISTER_BASIC)
        self._more = Form(RegisterConfig, tuple(f for f in fields if f not in _REGISTER_BASIC))
        self._add_form(self.form)
        self._add_more(self._more)
        tip = "Bring every stain into the frame of the reference: turn, flip, shear and bend it."
        self._go = push_button("Register", tip, self._on_go)
        self._column.addWidget(self._go)
        self.table = QTableWidget(0, len(_RESULT))
        self.table.setHorizontalHeaderLabels(_RESULT)
        for column, tip in enumerate(_RESULT_TIPS):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        self.table.setAccessibleName("Registrations")
        self.table.verticalHeader().hide()
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self._column.addWidget(self.table)
        self._doubts = QLabel()
        self._doubts.setWordWrap(True)
        self._column.addWidget(self._doubts)
        self._column.addWidget(self.compare)

    def _on_go(self) -> None:
        config = self._config(RegisterConfig, self.form, self._more)
        if config is not None:
            self._work.register(config)


def _result_line(result: Mapping[str, Any]) -> tuple[str, ...]:
    turned = result["rotation_deg"]
    dice = result["dice_after"]
    return (
        result["case"],
        result["stain"],
        result["status"],
        "–" if turned is None else f"{turned:.0f}°{' flipped' if result['flipped'] else ''}",
        "–" if dice is None else f"{dice:.2f}",
    )
