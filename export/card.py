"""The model card, `README.md` in a version's folder: the report in words and tables (Mitchell et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.candidate import Candidate
from export.evaluate import METRICS
from server.manifest import Manifest

CARD_FILE = "README.md"
NOTHING_MEASURED = "(Packed without data: nothing was fitted or measured.)"


def render(report: Mapping[str, Any]) -> str:
    """Markdown from the contents of `report.json`."""
    dataset = report["dataset"]
    rows = ", ".join(f"{count:,} {split}" for split, count in dataset["rows"].items())
    default = report["default_strategy"]
    return f"""# {report["ensemble"]} {report["version"]}

{report["description"]}

Made on {report["created"]} from data set `{dataset["name"]}`, split with seed {dataset["seed"]}: {rows} rows.
Validation rows fitted the weights and chose the default strategy, `{default}`; calibration rows the temperatures;
both the final estimator of `stacking` and the `cascade`, where there are any; test rows, on which every figure below is
measured, chose nothing.

## Members

{members_table(report)}

µs a row: alone, one thread, in batches of 64, on the machine that trained. Parity: the largest difference between the
trained model's probabilities and its ONNX graph's, over the validation rows and rows made to be awkward.

## Strategies

{strategies_table(report)}

{_verdict(report)}

{cascade_section(report)}## Answering less

{selective_table(report)}

A request that says `abstain_below` gets no answer for rows of less confidence; accuracy is that of the rows that are
left, by `{default}`.

## Against scikit-learn

{baselines_table(report)}

The same members, fused by scikit-learn's `VotingClassifier` and `StackingClassifier` (a logistic regression), fitted on
the validation and calibration rows. The last two columns: `{default}` less scikit-learn's, on the same rows.

{notes_list(report)}Figures are those of the test split with 95% bootstrap intervals; `report.json` holds them
all and defines them.

## Use

The members answer for inputs like those of the data set; nothing here says how they answer for others. Probabilities
are of the listed classes only: there is no "none of these".
"""


def render_unmeasured(manifest: Manifest, candidates: Sequence[Candidate]) -> str:
    """Markdown for an ensemble that was packed without data."""
    lines = ["| member | framework | µs a row | parity |", "|---|---|---|---|"]
    for spec, candidate in zip(manifest.members, candidates, strict=True):
        cells = [spec.name, spec.framework, f"{spec.cost_us or 0:.1f}", f"{candidate.parity.largest_difference:.1e}"]
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines)
    return f"""# {manifest.name} {manifest.version}

{manifest.description}

Made on {manifest.created} from trained models alone. Nobody has measured how well they answer: all members weigh the
same, no probabilities are calibrated, and the default strategy is `{manifest.default_strategy}`.

## Members

{table}

µs a row: alone, one thread, in batches of 64, on the machine that packed. Parity: the largest difference between the
trained model's probabilities and its ONNX graph's, over rows that were made up.
"""


def notes_list(report: Mapping[str, Any]) -> str:
    """What whoever uses the ensemble should know, a line each."""
    notes = report["notes"]
    return "".join(f"- {note}\n" for note in notes) + ("\n" if notes else "")


def members_table(report: Mapping[str, Any]) -> str:
    lines = [
        "| member | framework | accuracy | log-loss | µs a row | weight | temperature | parity |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, member in report["members"].items():
        test = member["test"]
        cells = [
            name,
            member["framework"],
            f"{test['accuracy']['value']:.4f}",
            f"{test['log_loss']['value']:.4f}",
            f"{member['cost_us']:.1f}",
            f"{member['weights']['weighted']:.3f}",
            f"{member['temperature']:.2f}",
            f"{member['parity']['largest_difference']:.1e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def strategies_table(report: Mapping[str, Any]) -> str:
    lines = ["| strategy | accuracy | log-loss | Brier | ECE |", "|---|---|---|---|---|"]
    for name, strategy in report["strategies"].items():
        test = strategy["test"]
        cells = [f"{test[m]['value']:.4f} ({test[m]['low']:.4f} to {test[m]['high']:.4f})" for m in METRICS]
        shown = f"**{name}**" if name == report["default_strategy"] else name
        lines.append(f"| {' | '.join([shown, *cells])} |")
    return "\n".join(lines)


def cascade_section(report: Mapping[str, Any]) -> str:
    """How the cascade does on the test rows; nothing if there is none."""
    cascade = report["cascade"]
    if cascade is None:
        return ""
    lines = ["| stage | members | goes on below | µs a row | test rows |", "|---|---|---|---|---|"]
    for number, stage in enumerate(cascade["stages"], start=1):
        threshold = stage["threshold"]
        cells = [
            f"{number}",
            ", ".join(stage["members"]),
            "" if threshold is None else f"{threshold:.4g}",
            f"{stage['cost_us']:.1f}",
            f"{stage['share']:.1%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    table = "\n".join(lines)
    over = cascade["over_all_members"]
    return f"""## Cascade

{table}

By `cascade` the members of a stage answer only the rows whose {cascade["measure"]} was below the threshold before it;
answers are fused by `{cascade["strategy"]}`. Expected {cascade["cost_us"]:.1f} µs a row, where all members cost
{cascade["all_members_us"]:.1f}. Less all members fused alike: accuracy {_signed(over["accuracy"])}, log-loss
{_signed(over["log_loss"])}.

"""


def selective_table(report: Mapping[str, Any]) -> str:
    """Every other point, of those that are measured."""
    lines = ["| confidence at least | rows answered | accuracy |", "|---|---|---|"]
    for point in report["selective"][::2]:
        lines.append(f"| {point['threshold']:.6g} | {point['share']:.1%} | {point['accuracy']:.4f} |")
    return "\n".join(lines)


def baselines_table(report: Mapping[str, Any]) -> str:
    lines = ["| scikit-learn's | accuracy | log-loss | ours: accuracy | ours: log-loss |", "|---|---|---|---|---|"]
    for name, baseline in report["baselines"].items():
        test, difference = baseline["test"], baseline["difference"]
        own = [f"{test[metric]['value']:.4f}" for metric in ("accuracy", "log_loss")]
        ours = [_signed(difference[metric]) for metric in ("accuracy", "log_loss")]
        lines.append(f"| {' | '.join([name, *own, *ours])} |")
    return "\n".join(lines)


def _verdict(report: Mapping[str, Any]) -> str:
    gains = report["strategies"][report["default_strategy"]]["over_best_member"]
    accuracy, loss = gains["accuracy"], gains["log_loss"]
    return (
        f"Against the best member on the same rows, `{report['default_strategy']}` changes accuracy by "
        f"{_signed(accuracy)} (against `{accuracy['member']}`) and log-loss by {_signed(loss)} "
        f"(against `{loss['member']}`)."
    )


def _signed(gain: Mapping[str, float]) -> str:
    return f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"
