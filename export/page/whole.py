"""Sections as one HTML page that needs nothing else."""

from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from export.page.blocks import Plot, Section
from export.page.svg import inline, matplotlib_style

FOLDER = Path(__file__).parent


def whole_page(name: str, description: str, sections: Iterable[Section], facts: Sequence[tuple[str, str]] = ()) -> str:
    """No network and no scripts: the same for the same sections.

    `sections` are drawn here, in the page's own style: a generator, so that its figures are made in it too. `facts` are
    what the figures rest on, name and value.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    keys = count(1)

    def svg(plot: Plot) -> Markup:
        label = f"{plot.title}. {plot.says}".strip()
        return Markup(inline(plot.figure, f"p{next(keys)}", label))  # the names in it were escaped on the way

    environment.filters["svg"] = svg
    style = Markup((FOLDER / "style.css").read_text("utf-8"))
    with matplotlib_style():
        return environment.get_template("page.html").render(
            name=name, description=description, style=style, sections=list(sections), facts=list(facts)
        )
