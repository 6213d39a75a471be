"""The answer to a predict request, in the form that its `Accept` asks for."""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from server.codec.answers import encode_json, write_weights
from server.codec.arrays import encode_npy, encode_raw
from server.codec.media import JSON, NPY, RAW
from server.codec.options import Detail, RequestOptions
from server.errors import InvalidInput
from server.prediction import Prediction
from server.rest.errors import error_reply
from server.rest.reply import Reply, make_reply

FORMS = (JSON, RAW, NPY)
"""JSON first: it is what is meant where several are as welcome."""

_RANGE = re.compile(r"[ \t]*([^\s;,/]+/[^\s;,/]+)[ \t]*((?:;[^,]*)?)")
_QUALITY = re.compile(r";[ \t]*q=([^\s;]*)[ \t]*(?:;|$)", re.IGNORECASE)
_DECIMAL = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def choose_form(accept: Iterable[str]) -> str | None:
    """Which of FORMS the `Accept` headers like best; JSON if there are none, None if they take none of them.

    The quality of a form is that of the range which names it most exactly. Among equals the more exactly named wins,
    then the one named first.
    """
    text = ",".join(accept)
    if not text.strip():
        return JSON
    ranges = [parsed for entry in text.split(",") if (parsed := _parse_range(entry))]
    best = max(FORMS, key=lambda form: _rank(form, ranges))
    return best if _rank(best, ranges)[0] > 0 else None


def not_acceptable() -> Reply:
    return error_reply(406, "not_acceptable", f"Accept: expected one of {', '.join(FORMS)}; got none of them")


def check_options(form: str, options: RequestOptions) -> None:
    """Raise InvalidInput if something is asked for that this form cannot hold."""
    if form == JSON:
        return
    for name in ("detail", "abstain_below"):
        if getattr(options, name) is not None:
            raise InvalidInput(f"{name}: expected none with Accept: {form}, which holds the probabilities; got some")


def encode(prediction: Prediction, form: str, *, id: str | None, detail: Sequence[Detail] | None) -> Reply:  # noqa: A002
    """The whole answer as JSON; else the fused probabilities `(n, n_classes)`, and the rest in headers."""
    if form == JSON:
        return make_reply(encode_json(prediction, id=id, detail=detail or ()), JSON)
    encode_array = encode_raw if form == RAW else encode_npy
    return make_reply(encode_array(prediction.fused.probabilities), form, headers=_facts(prediction, id))


def _facts(prediction: Prediction, id_: str | None) -> dict[str, str]:
    """What JSON has beside the predictions. An id is percent-encoded: it may be any text, and a header may not."""
    manifest = prediction.ensemble.manifest
    facts = {
        "Committee-Model": manifest.name,
        "Committee-Version": str(manifest.version),
        "Committee-Strategy": prediction.strategy,
        "Committee-Members": write_weights(prediction),
        "Committee-Degraded": "true" if prediction.missing else "false",
    }
    if prediction.missing:
        facts["Committee-Missing"] = ",".join(f"{name}:{reason}" for name, reason in prediction.missing.items())
    return facts if id_ is None else {**facts, "Committee-Id": quote(id_, safe="")}


def _parse_range(entry: str) -> tuple[str, float] | None:
    """A media range and its quality; other parameters do not count. None if it is malformed."""
    match = _RANGE.fullmatch(entry)
    if not match:
        return None
    quality = _QUALITY.search(match[2])
    if quality is None:
        return match[1].lower(), 1.0
    return (match[1].lower(), float(quality[1])) if _DECIMAL.fullmatch(quality[1]) else None


def _rank(form: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int, int]:
    """Its quality, how exactly it is named, and (the less the later) where."""
    kinds = ("*/*", f"{form.partition('/')[0]}/*", form)
    named = [(kinds.index(kind), -place, quality) for place, (kind, quality) in enumerate(ranges) if kind in kinds]
    if not named:
        return 0.0, 0, 0
    exactness, place, quality = max(named)
    return quality, exactness, place
