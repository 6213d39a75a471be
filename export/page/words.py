"""Figures as a reader wants them: `0.9123`, `41.3 µs`, `378 kB`, `30% less`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NONE = "–"
"""Stands where there is no figure."""


def figure(value: float | None, digits: int = 4) -> str:
    return NONE if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 4) -> str:
    """With its sign, a true minus: `−0.0312`."""
    return NONE if value is None else f"{value:+.{digits}f}".replace("-", "−")


def points(difference: float, digits: int = 2) -> str:
    """A difference of two shares: 0.0041 → `+0.41`."""
    return signed(100 * difference, digits)


def moved(difference: float, *, in_points: bool = False) -> str:
    """`0.42 points higher`, `0.0312 lower`, `the same`"""
    shown = f"{abs(100 * difference):.2f} points" if in_points else f"{abs(difference):.4f}"
    if float(shown.split()[0]) == 0:
        return "the same"
    return f"{shown} {'higher' if difference > 0 else 'lower'}"


def count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def share(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{100 * value:.{digits}f}%"


def cost(value: float | None) -> str:
    """Microseconds, three digits at least: `0.24`, `41.3`, `2,603`."""
    if value is None:
        return NONE
    digits = 2 if value < 10 else 1 if value < 1000 else 0
    return f"{value:,.{digits}f}"


def microseconds(value: float | None) -> str:
    return NONE if value is None else f"{cost(value)} µs"


def size(n_bytes: float | None) -> str:
    """`812 B`, `378 kB`, `1.7 MB`"""
    if n_bytes is None:
        return NONE
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    return f"{n_bytes / 1e3:.0f} kB" if n_bytes < 999_500 else f"{n_bytes / 1e6:.1f} MB"


def duration(seconds: float) -> str:
    """`48 s`, `12 min`, `1.5 h`"""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def compared(value: float, other: float) -> str:
    """`30% less`, `as much`, `20% more`, `4.5 times as much`"""
    ratio = value / other if other else 1.0
    if round(100 * ratio) == 100:
        return "as much"
    if ratio >= 2:
        return f"{ratio:.1f} times as much"
    return f"{share(abs(ratio - 1))} {'less' if ratio < 1 else 'more'}"


def number(value: int, noun: str, plural: str = "") -> str:
    """`1 member`, `3 members`"""
    return f"{count(value)} {noun if value == 1 else plural or noun + 's'}"


def listed(names: Iterable[str]) -> str:
    """`a, b and c`"""
    *others, last = [*names] or [NONE]
    return f"{', '.join(others)} and {last}" if others else last


def interval(bounds: Mapping[str, Any] | None, digits: int = 4) -> str:
    """`0.9123 (0.9070 to 0.9176)`; without bounds the value alone."""
    if bounds is None or bounds.get("low") is None:
        return figure((bounds or {}).get("value"), digits)
    return f"{figure(bounds['value'], digits)} ({figure(bounds['low'], digits)} to {figure(bounds['high'], digits)})"


def spread(value: float, deviation: float | None) -> str:
    """`0.9123 ± 0.0041`; without a deviation the value alone."""
    return figure(value) + ("" if deviation is None else f" ± {figure(deviation)}")


def settings(table: Mapping[str, Any]) -> str:
    """The plain ones of a recipe's settings, in a row: `trials 40 · epochs 4`."""
    plain = {
        key.replace("_us", " µs").replace("_", " "): _plain(value)
        for key, value in table.items()
        if key not in ("name", "space") and isinstance(value, int | float | str) and value != ""
    }
    return " · ".join(f"{key} {value}" for key, value in plain.items())


def params(drawn: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_plain(value)}" for key, value in drawn.items())


def layers(stack: Sequence[Mapping[str, Any]]) -> str:
    """A network in a line: `2 × (32 conv 3×3 · maxpool 2) · dense 64 · mish`. What all layers share is said once."""
    activations = {layer["activation"] for layer in stack if "activation" in layer}
    shared = activations.pop() if len(activations) == 1 else None
    told = [text for layer in stack if (text := _layer(layer, shared))]
    return " · ".join([*_folded(told), *([shared] if shared else [])])


def _layer(layer: Mapping[str, Any], shared: str | None) -> str:
    kind, activation = layer.get("layer"), "" if shared else layer.get("activation", "")
    if kind == "conv":
        about = "separable " if layer.get("separable") else ""
        size = layer.get("size", 3)
        return f"{layer.get('filters')} {about}conv {size}×{size} {activation}".rstrip()
    if kind == "dense":
        return f"dense {layer.get('units')} {activation}".rstrip()
    if kind in ("maxpool", "avgpool"):
        return f"{kind} {layer.get('size', 2)}"
    return {"globalpool": "global pool", "dropout": f"dropout {layer.get('rate')}"}.get(str(kind), "")


def _folded(told: Sequence[str]) -> list[str]:
    """With what repeats itself, one to three layers at a time, said once."""
    found: list[str] = []
    at = 0
    while at < len(told):
        span, times = max(
            ((span, _repeats(told, at, span)) for span in (1, 2, 3)),
            key=lambda some: (some[0] * (some[1] - 1), -some[0]),
        )
        part = " · ".join(told[at : at + span])
        found.append(part if times == 1 else f"{times} × ({part})")
        at += span * times
    return found


def _repeats(told: Sequence[str], at: int, span: int) -> int:
    part, times = told[at : at + span], 1
    while told[at + times * span : at + (times + 1) * span] == part:
        times += 1
    return times


def _plain(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
