"""Names of cells."""

import pytest

from bench.peers.cells import Cell, cells, parse
from bench.peers.contenders import ALL, QUICK, SECTIONS


def test_a_name_is_the_cell_and_the_cell_its_name() -> None:
    assert parse("binary32@8") == Cell("binary", 32, 8)
    assert str(Cell("json", 1, 256)) == "json1@256"
    assert parse("json1@64").title == "1 row, json, 64 conn."


@pytest.mark.parametrize("name", ["json1", "json@8", "json0@8", "json1@0", "yaml1@8", "json1@8 "])
def test_what_is_no_cell_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a cell such as json1@64"):
        parse(name)


def test_sections_name_contenders_and_cells_that_there_are() -> None:
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
    for section in (*SECTIONS, QUICK):
        assert set(section.contenders) <= set(ALL)
        assert cells(section.cells)
        for name in section.contenders:  # each is measured in the first cell: it is started with it
            assert ALL[name].takes(cells(section.cells)[0].kind)
