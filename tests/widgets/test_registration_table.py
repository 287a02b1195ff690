"""The table of registrations: what it says, and which line was clicked."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtCore import Qt

from napari_pancluster._widgets.registration_table import HEADERS, RegistrationTable

OK: dict[str, Any] = {
    "case": "liver",
    "stain": "PAS",
    "status": "ok",
    "reason": "Outlines and structures agree.",
    "mpp_estimated": None,
    "rotation_deg": 171.8,
    "flipped": True,
    "dice_before": 0.8414,
    "dice_after": 0.9616,
    "similarity_before": 0.0635,
    "similarity_after": 0.1849,
    "folding_fraction": 0.0,
    "tre_um": {"median": 23.4, "p90": 61.2},
    "seconds": 9.028,
    "locked": True,
}
FAILED = {
    **OK,
    "stain": "Masson trichrome",
    "status": "failed",
    "reason": "M.svs is gone.",
    "kept": "the registration before stays",
    "rotation_deg": 0.0,
    **dict.fromkeys(("dice_before", "dice_after", "similarity_before", "similarity_after"), 0.0),
    "tre_um": None,
    "locked": False,
}
DOUBTFUL = {**OK, "case": "mouse 12", "status": "doubtful", "tre_um": {"median": 4.25, "p90": 9}}


@pytest.fixture
def table(qtbot: Any) -> RegistrationTable:
    found = RegistrationTable()
    qtbot.addWidget(found)
    found.resize(400, 200)
    return found


def _cell(table: RegistrationTable, row: int, header: str) -> Any:
    return table.item(row, HEADERS.index(header))


def test_a_line_tells_all_of_a_registration(table: RegistrationTable) -> None:
    table.show_results([OK])
    line = [table.item(0, n).text() for n in range(table.columnCount())]
    assert line == [
        "liver",
        "PAS",
        "✓ ok",
        "172° flip",
        "0.84→0.96",
        "0.06→0.18",
        "23 µm",
        "9 s",
        "yes",
    ]
    assert "nine in ten below 61 µm" in _cell(table, 0, "Error").toolTip()
    for n in range(table.columnCount()):
        assert OK["reason"] in table.item(0, n).toolTip()
        assert table.horizontalHeaderItem(n).toolTip()


def test_what_was_not_measured_is_not_made_up(table: RegistrationTable) -> None:
    table.show_results([FAILED, {"case": "liver", "stain": "CD31", "status": "ok"}])
    for row in (0, 1):
        for header in ("Turned", "Overlap", "Similarity", "Error"):
            assert _cell(table, row, header).text() == "–", header
    assert _cell(table, 0, "Locked").text() == ""
    tip = _cell(table, 0, "Status").toolTip()
    assert "M.svs is gone." in tip and "the registration before stays" in tip


def test_a_failed_one_that_was_measured_says_what(table: RegistrationTable) -> None:
    table.show_results([{**FAILED, "dice_before": 0.2, "dice_after": 0.25}])
    assert _cell(table, 0, "Overlap").text() == "0.20→0.25"


def test_the_status_is_told_by_word_sign_and_colour(table: RegistrationTable) -> None:
    table.show_results([OK, DOUBTFUL, FAILED])
    cells = [_cell(table, row, "Status") for row in range(3)]
    assert [c.text() for c in cells] == ["✓ ok", "! doubtful", "✗ failed"]
    assert len({c.foreground().color().name() for c in cells}) == 3


def test_the_case_is_named_where_there_are_several(table: RegistrationTable) -> None:
    table.show_results([OK, FAILED])
    assert table.isColumnHidden(0)
    table.show_results([OK, DOUBTFUL])
    assert not table.isColumnHidden(0)


def test_errors_are_in_the_unit_of_the_project(table: RegistrationTable) -> None:
    table.show_results([DOUBTFUL], unit="px")
    assert _cell(table, 0, "Error").text() == "4.2 px"


def test_a_click_tells_which_line(table: RegistrationTable, qtbot: Any) -> None:
    table.show_results([OK, DOUBTFUL])
    chosen: list[tuple[str, str]] = []
    table.chosen.connect(lambda case, stain: chosen.append((case, stain)))
    place = table.visualItemRect(_cell(table, 1, "Status")).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert chosen == [("mouse 12", "PAS")]
    # The line stays lit when results come anew, wherever it is then.
    table.show_results([DOUBTFUL, OK])
    assert chosen == [("mouse 12", "PAS")]
    assert [i.row() for i in table.selectionModel().selectedRows()] == [0]
    table.show_results([OK])
    assert not table.selectionModel().selectedRows()


def test_nothing_is_cut_off_in_a_narrow_panel(table: RegistrationTable) -> None:
    table.show()
    table.show_results([OK, FAILED, {**OK, "status": "doubtful"}])
    metrics = table.fontMetrics()
    for column in range(1, table.columnCount()):
        words = [table.item(row, column).text() for row in range(3)]
        # Of a name of two words each has its line.
        longest = max((w for text in words for w in text.split("\n")), key=len)
        if HEADERS[column] == "Stain":
            longest = max((w for text in words for w in text.split()), key=len)
            assert table.rowHeight(1) >= 2 * metrics.height()
        assert table.columnWidth(column) >= metrics.horizontalAdvance(longest), HEADERS[column]
        header = table.horizontalHeader()
        assert table.columnWidth(column) >= header.sectionSizeHint(column), HEADERS[column]
    # What matters most is seen without scrolling.
    last = HEADERS.index("Similarity")
    assert table.columnViewportPosition(last) + table.columnWidth(last) <= table.viewport().width()
