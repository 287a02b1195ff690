"""The panel Register: how every stain is brought into one frame, and how well it lies."""

from __future__ import annotations

from typing import Any

from napari.viewer import Viewer
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel
from superqt import QCollapsible

from napari_pancluster._session import Session
from napari_pancluster._widgets.by_hand_box import ByHandBox
from napari_pancluster._widgets.carry_box import CarryBox
from napari_pancluster._widgets.compare_box import CompareBox
from napari_pancluster._widgets.evidence_box import EvidenceBox
from napari_pancluster._widgets.forms import Form
from napari_pancluster._widgets.jobs import Jobs
from napari_pancluster._widgets.landmarks_box import LandmarksBox
from napari_pancluster._widgets.registration_table import RegistrationTable
from napari_pancluster._widgets.rows import push_button
from napari_pancluster._widgets.steps import StepPanel
from napari_pancluster._widgets.versions_box import VersionsBox
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.pipeline.registering import registration_results
from napari_pancluster.core.registration import Landmarks

_REGISTER_BASIC = ("deformable", "strategy")
_AGAIN = "Only the line clicked below"
# The box of the landmarks asks for it where they are used.
_ASKED_ELSEWHERE = ("landmark_use",)


class RegisterPanel(StepPanel):
    """Registers every stain onto the reference, shows how well, and lets a person put it right."""

    def __init__(self, viewer: Viewer, session: Session, work: Work, jobs: Jobs) -> None:
        # Case and stain of the line that was clicked last.
        self._chosen = ("", "")
        self.compare = CompareBox(viewer, session)
        self.evidence = EvidenceBox(viewer, session)
        self.landmarks = LandmarksBox(viewer, session)
        self.by_hand = ByHandBox(viewer, session, work, config=self._read_config)
        self.versions = VersionsBox(viewer, session, work, jobs)
        self.carry = CarryBox(viewer, session, work)
        super().__init__(session, work, jobs)
        for box in self._boxes:
            box.complained.connect(self.complained)
        # One of the two has the view at a time.
        self.by_hand.started.connect(self.compare.switch_off)
        self.compare.started.connect(self.by_hand.cancel)
        self.landmarks.wanted.connect(self._on_landmarks)
        self.table.chosen.connect(self._on_chosen)

    @property
    def _boxes(self) -> tuple[Any, ...]:
        return (
            self.compare,
            self.evidence,
            self.landmarks,
            self.by_hand,
            self.versions,
            self.carry,
        )

    def close_session(self) -> None:
        """Stop listening."""
        for box in self._boxes:
            box.close_session()
        super().close_session()

    def refresh(self) -> None:
        """Show what was registered, and how well."""
        project = self._session.project
        self._go.setEnabled(self._idle)
        results = (
            registration_results(project, [c.name for c in project.state.cases]) if project else []
        )
        if self._chosen not in {(r["case"], r["stain"]) for r in results}:
            self._chosen = ("", "")
        self._offer_again()
        self.table.show_results(results, unit="px" if self._session.unit == "pixel" else "µm")
        self.table.setVisible(bool(results))
        doubts = [
            f"{r['stain']} of {r['case']}: {r['status']}. {r['reason']}"
            for r in results
            if r["status"] != "ok"
        ]
        self._doubts.setText("\n".join(doubts))
        self._doubts.setVisible(bool(doubts))

    def _build(self) -> None:
        rest = (*_REGISTER_BASIC, *_ASKED_ELSEWHERE)
        self.form = Form(RegisterConfig, _REGISTER_BASIC)
        self._more = Form(
            RegisterConfig, tuple(f for f in RegisterConfig.model_fields if f not in rest)
        )
        self._add_form(self.form)
        self._add_more(self._more)
        tip = "Bring every stain into the frame of the reference: turn, flip, shear and bend it."
        self._go = push_button("Register", tip, self._on_go)
        self._again = push_button(_AGAIN, "Choose a line of the table first.", self._on_again)
        line = QHBoxLayout()
        line.addWidget(self._go)
        line.addWidget(self._again)
        self._column.addLayout(line)
        self.table = RegistrationTable()
        self._column.addWidget(self.table)
        self._doubts = QLabel()
        self._doubts.setWordWrap(True)
        self._column.addWidget(self._doubts)
        self._column.addWidget(self.compare)
        for title, tip, box in (
            ("How well it fits", "The bending, its folds, and the confidence.", self.evidence),
            ("Put it right: landmarks", "Click the same spots on both slides.", self.landmarks),
            ("Put it right: by hand", "Drag and turn a slide as the start.", self.by_hand),
            ("Versions", "Earlier registrations; lock one that is right.", self.versions),
            (
                "Carry over and write",
                "Points, annotations and labels to another stain; transforms and slides to files.",
                self.carry,
            ),
        ):
            more = QCollapsible(title)
            more.toggleButton().setToolTip(tip)
            more.addWidget(box)
            self._column.addWidget(more)

    def _read_config(self) -> RegisterConfig | None:
        config = self._config(RegisterConfig, self.form, self._more)
        return config if isinstance(config, RegisterConfig) else None

    def _on_go(self) -> None:
        config = self._read_config()
        if config is not None:
            self._work.register(config)

    def _offer_again(self) -> None:
        case, stain = self._chosen
        self._again.setText(f"Only {stain}" if stain else _AGAIN)
        tip = f"Register {stain} of {case} anew; the registration before is kept as a version."
        self._again.setToolTip(tip if stain else "Choose a line of the table first.")
        self._again.setEnabled(self._idle and bool(stain))

    def _on_again(self) -> None:
        config, (case, stain) = self._read_config(), self._chosen
        if config is not None and stain:
            self._work.register(config, cases=[case], stains=[stain])

    def _on_landmarks(self, stain: str, landmarks: Landmarks, use: str) -> None:
        config = self._read_config()
        if config is not None:
            self._work.register(
                config.model_copy(update={"landmark_use": use}),
                cases=[self._session.case],
                stains=[stain],
                landmarks={stain: landmarks},
            )

    def _on_chosen(self, case: str, stain: str) -> None:
        """Turn every box to the stain of a line."""
        self._chosen = case, stain
        self._offer_again()
        self._session.show_case(case)
        for box in (self.compare, self.evidence, self.landmarks, self.by_hand, self.versions):
            _choose(box.stain, stain)


def _choose(names: QComboBox, name: str) -> None:
    at = names.findText(name)
    if names.isEnabled() and at >= 0 and at != names.currentIndex():
        names.setCurrentIndex(at)
        names.activated.emit(at)
