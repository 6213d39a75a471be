"""The report of a run as one page: what was tried, what came of it, and what was published."""

from collections.abc import Iterator, Mapping
from typing import Any

from export.page import (
    answers,
    candidates,
    cascade,
    choosing,
    comparisons,
    mistakes,
    pruning,
    searches,
    selective,
    summary,
    tuning,
    words,
)
from export.page.blocks import Section, Words
from export.page.whole import whole_page


def render(numbers: Mapping[str, Any]) -> str:
    """One HTML page that needs nothing else, no network and no scripts: the same for the same numbers.

    `numbers`, ready for JSON, are those of the steps: `name`, `description`, `created`, `seed`, `dataset`, `software`,
    `machine`, `searches`, `activations`, `regularisation`, `candidates`, `failed` and `ensembles`. What is missing or
    empty is left out of the page. Of a baseline's `difference`, the sign is that of the default strategy less the
    baseline.
    """
    return whole_page(
        str(numbers.get("name") or "A run"), str(numbers.get("description") or ""), _sections(numbers), _facts(numbers)
    )


def _sections(numbers: Mapping[str, Any]) -> Iterator[Section]:
    found = numbers.get("candidates") or []
    yield from summary.sections(numbers)
    yield from candidates.sections(numbers)
    for ensemble in numbers.get("ensembles") or []:
        yield from _ensemble(ensemble, (numbers.get("dataset") or {}).get("classes") or [])
    yield from searches.sections(numbers.get("searches") or [])
    yield from comparisons.activations(numbers.get("activations") or {})
    yield from comparisons.regularisation(numbers.get("regularisation") or {})
    yield from pruning.pruned(found)
    yield from pruning.quantised(found)
    yield from tuning.sections(found)


def _ensemble(ensemble: Mapping[str, Any], classes: list[str]) -> Iterator[Section]:
    parts = [
        *answers.sections(ensemble),
        *cascade.sections(ensemble),
        *selective.sections(ensemble),
        *choosing.sections(ensemble),
        *mistakes.sections(ensemble, classes),
    ]
    about = ensemble.get("description") or ""
    if parts:
        title = f"Ensemble {ensemble['name']} {ensemble.get('version', '')}".strip()
        yield Section(title, [Words(about)] if about else [], parts)


def _facts(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the figures rest on, name and value."""
    dataset = numbers.get("dataset") or {}
    rows = ", ".join(f"{words.count(n)} {split}" for split, n in (dataset.get("rows") or {}).items())
    names = [str(name) for name in dataset.get("classes") or []]
    classes = f"{len(names)}: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}" if names else ""
    software = ", ".join(f"{name} {version}" for name, version in (numbers.get("software") or {}).items())
    facts = {
        "data set": dataset.get("name"),
        "rows": rows,
        "classes": classes,
        "seed": numbers.get("seed"),
        "made": numbers.get("created"),
        "machine": numbers.get("machine"),
        "software": software,
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]
