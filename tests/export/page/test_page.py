import re
from html.parser import HTMLParser
from typing import Any

import pytest

from export.page import render
from tests.export.page.sample import numbers as make_numbers

VOID = {"meta", "link", "br", "hr", "img", "input", "col"}


@pytest.fixture(scope="module", name="numbers")
def _numbers() -> dict[str, Any]:
    return make_numbers()


@pytest.fixture(scope="module", name="page")
def _page(numbers: dict[str, Any]) -> str:
    return render(numbers)


class _Nesting(HTMLParser):
    """Fails on a tag that closes another than the one that is open, and gathers ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "xlink:href") and (value or "").startswith("#"):
                self.references.append((value or "")[1:])
            self.references += re.findall(r"url\(#([^)]+)\)", value or "")


def _parsed(page: str) -> _Nesting:
    parser = _Nesting()
    parser.feed(page)
    parser.close()
    return parser


def test_it_is_valid_and_every_reference_has_its_one_target(page: str) -> None:
    parsed = _parsed(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert set(parsed.references) <= set(parsed.ids)


def test_it_needs_no_network_and_no_scripts(page: str) -> None:
    assert "<script" not in page
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:""", page)
    assert "@import" not in page
    assert len(page) < 2_000_000


def test_it_has_colours_for_light_and_for_dark(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        drawn = set(re.findall(r"(?:fill|stroke): ?(#[0-9a-fA-F]{6})", svg))
        assert not drawn & {"#000000", "#ffffff"}, "a colour that one of the schemes swallows"


def test_the_same_numbers_give_the_same_page(numbers: dict[str, Any], page: str) -> None:
    assert render(numbers) == page


def test_every_step_has_its_place(numbers: dict[str, Any], page: str) -> None:
    text = " ".join(_parsed(page).text)
    for candidate in numbers["candidates"]:
        assert candidate["name"] in text
    for row in numbers["activations"]["summary"]:
        assert row["activation"] in text
    for variant in numbers["regularisation"]["variants"]:
        assert variant["name"] in text
    for ensemble in numbers["ensembles"]:
        for strategy in ("average", "weighted", "vote", "log_linear", "median", "max"):
            assert strategy in text
        for baseline in ensemble["baselines"]:
            assert baseline in text
    for failure in numbers["failed"]:
        assert failure["reason"] in text
    plots = re.findall(r"<svg[^>]*>", page)
    assert len(plots) > 10
    assert all("aria-label=" in plot or "aria-labelledby=" in plot for plot in plots)


def test_the_figures_are_the_numbers(numbers: dict[str, Any], page: str) -> None:
    text = " ".join(_parsed(page).text)
    for ensemble in numbers["ensembles"]:
        scores = ensemble["test"][ensemble["default_strategy"]]
        for metric in ("accuracy", "log_loss"):
            value = scores[metric]["value"]
            shown = {f"{value:.4f}", f"{value:.3f}", f"{100 * value:.2f}", f"{100 * value:.1f}"}
            assert any(figure in text for figure in shown), (metric, value)


def test_names_are_escaped(numbers: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    changed = numbers | {
        "name": evil,
        "description": evil,
        "candidates": [numbers["candidates"][0] | {"name": evil}, *numbers["candidates"][1:]],
        "failed": [{"name": evil, "reason": evil}],
    }
    page = render(changed)
    assert "<script" not in page
    assert _parsed(page).open == []


@pytest.mark.parametrize(
    "section", ["searches", "activations", "regularisation", "candidates", "ensembles", "software", "machine"]
)
def test_a_section_stands_without_the_others_and_an_empty_one_is_left_out(
    numbers: dict[str, Any], section: str
) -> None:
    nothing = render({})
    alone = render({section: numbers[section]})
    assert _parsed(alone).open == []
    assert len(alone) > len(nothing)
    assert render({section: type(numbers[section])()}) == nothing


def test_what_could_not_be_measured_is_a_dash_or_not_there() -> None:
    candidate = {"name": "a", "kind": "keras_cnn", "made_of": [], "teachers": [], "cost_us": 3.0, "bytes": None,
                 "parameters": None, "accuracy": 0.5, "log_loss": 0.7, "ece": None, "record": {}}  # fmt: skip
    page = render({"candidates": [candidate, candidate | {"name": "unpriced", "cost_us": None}]})
    assert _parsed(page).open == []
    assert "unpriced" not in page


def test_names_in_any_script_and_of_any_length_are_drawn(recwarn: pytest.WarningsRecorder) -> None:
    names = ["猫" * 40, "$x$ & <b>", "ü" * 300]
    summary = [
        {"activation": name, "accuracy": 0.5, "log_loss": 0.7 + k, "cost_us": 1.0} for k, name in enumerate(names)
    ]
    page = render({"activations": {"summary": summary, "rows": []}})
    assert _parsed(page).open == []
    assert "$x$ &amp; &lt;b&gt;" in page
    assert not recwarn.list
