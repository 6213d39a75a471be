"""Matplotlib figures as SVG to stand inside a page: text stays text, and colours are the page's own.

A figure is drawn in stand-in colours, which become CSS variables: one drawing is right in the light and in the dark.
What the page does not need (declarations, metadata, fonts, groups' names, digits) is dropped.
"""

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib

_VARIABLES = ("ink", "soft", "line", "paper", "c1", "c2", "c3", "c4", "c5", "c6")
INK, SOFT, LINE, PAPER, *SERIES = [f"#fe01{k:02x}" for k in range(len(_VARIABLES))]
"""Stand-ins for the page's colours: text, what recedes, rules, background; and of series, the first the accent."""
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "committee",
    "text.parse_math": False,
    "text.color": INK,
    "font.size": 12,
    "axes.unicode_minus": True,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.labelcolor": SOFT,
}
"""Matplotlib's settings while figures are made and drawn."""
TIP = "tip "
_STAND_IN = re.compile(r"#fe01([0-9a-f]{2})")
_LONG = re.compile(r"(\.\d\d)\d+")
_GEOMETRY = ("d", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "transform")
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def tip(text: str) -> str:
    """The `gid` of an artist that is to say this when pointed at."""
    return TIP + text


def inline(figure: Any, key: str, label: str) -> str:
    """The figure as one `<svg>`, its ids begun with `key`, named `label` to those who cannot see it."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The browser draws the text, in fonts of its own: what matplotlib's lacks is no loss.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(name): value for name, value in element.attrib.items()}
    _drop(root, {"metadata", "style"})
    _rename_ids(root, key)
    for element in root.iter():
        _restyle(element)
    box = root.attrib["viewBox"]
    root.attrib = {"viewBox": box, "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode")


def matplotlib_style() -> Any:
    """A context in which figures come out the same whatever the user's own matplotlibrc says."""
    defaults = {key: matplotlib.rcParamsDefault[key] for key in matplotlib.rcParamsDefault if key != "backend"}
    return matplotlib.rc_context({**defaults, **STYLE})


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _drop(parent: ElementTree.Element, tags: set[str]) -> None:
    for child in list(parent):
        if child.tag in tags:
            parent.remove(child)
        else:
            _drop(child, tags)


def _rename_ids(root: ElementTree.Element, key: str) -> None:
    """Only what is referred to keeps an id; a tip becomes the title of its element."""
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", ElementTree.tostring(root, encoding="unicode")))
    names = {old: f"{key}-{n}" for n, old in enumerate(sorted(used))}
    for element in root.iter():
        own = element.attrib.pop("id", "")
        if own in names:
            element.set("id", names[own])
        elif own.startswith(TIP):
            title = ElementTree.Element("title")
            title.text = own.removeprefix(TIP)
            element.insert(0, title)
        if "href" in element.attrib:
            element.set("href", "#" + names[element.attrib["href"][1:]])
        if "clip-path" in element.attrib:
            element.set("clip-path", f"url(#{names[element.attrib['clip-path'][5:-1]]})")


def _restyle(element: ElementTree.Element) -> None:
    element.text, element.tail = (text if text and text.strip() else None for text in (element.text, element.tail))
    for name in _GEOMETRY:
        if name in element.attrib:
            element.set(name, " ".join(_LONG.sub(r"\1", element.attrib[name]).split()))
    if "rotate(-0" in element.attrib.get("transform", ""):
        del element.attrib["transform"]
    if "style" in element.attrib:
        style = re.sub(r"font-family: [^;]*;? ?", "", element.attrib["style"])
        element.set("style", _STAND_IN.sub(lambda found: f"var(--{_VARIABLES[int(found[1], 16)]})", style))
