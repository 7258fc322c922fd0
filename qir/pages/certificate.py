"""A certificate as text, as JSON and as one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from html import escape

from qir.api.certificate import Certificate, Difference
from qir.runs.run import JSON_KEY, Run

COMPARISONS = {
    "simulated": "integer simulator against onnxruntime, end to end",
    "stepwise": "integer simulator against onnxruntime, each tensor from the runtime's own values before it",
    "unoptimized": "onnxruntime without optimizations against onnxruntime with all",
    "reference": "ONNX's reference evaluator against onnxruntime without optimizations",
}


def as_json(certificate: Certificate, run: Run | None = None) -> str:
    """Everything in the certificate, and whether it holds; how the model was made, where that is known."""
    made = {} if run is None else {JSON_KEY: str(run)}
    return json.dumps({"holds": certificate.holds, **asdict(certificate), **made}, indent=1, default=str)


def as_text(certificate: Certificate) -> Iterator[str]:
    """The certificate in lines for a terminal."""
    yield f"{'holds' if certificate.holds else 'DOES NOT HOLD'} on {certificate.target}, {certificate.samples} samples"
    for name, title in COMPARISONS.items():
        differences: list[Difference] = getattr(certificate, name)
        yield f"  {title}: {_total(differences)}"
    for name, value in certificate.accuracy.items():
        yield f"  accuracy, {name}: {100 * value:.2f} %"
    floats = sum(not verdict.integer for verdict in certificate.verdicts)
    yield f"  {len(certificate.verdicts) - floats} operators compute with integers, {floats} in float"
    for finding in certificate.findings:
        yield f"  {finding.tensor}: {finding.cause}" + (f" (help: {finding.help})" if finding.help else "")


def _total(differences: Sequence[Difference]) -> str:
    differing, values = sum(d.differing for d in differences), sum(d.values for d in differences)
    largest = max((d.largest for d in differences), default=0)
    return f"{differing:,} of {values:,} values differ" + (f", by {largest} steps at most" if largest else "")


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1c2430; }
h1 .yes { color: #14784a; } h1 .no { color: #b3261e; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .2rem .8rem .2rem 0; }
th { border-bottom: 2px solid #c9d2dc; } td { border-bottom: 1px solid #e6ebf0; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } svg { vertical-align: middle; }
.same { color: #6b7683; } code { font-size: 13px; }
"""


def as_html(certificate: Certificate, title: str) -> str:
    """One page that needs nothing beside it: verdict, findings, histograms of differences, and every operator."""
    verdict = '<span class="yes">holds</span>' if certificate.holds else '<span class="no">does not hold</span>'
    parts = [
        f"<h1>{escape(title)}: {verdict}</h1>",
        f"<p>Target {escape(certificate.target)}, {certificate.samples} samples.</p>",
        table(("tensor", "cause", "what to do"), ([f.tensor, f.cause, f.help] for f in certificate.findings)),
    ]
    if certificate.accuracy:
        rows = ([name, f"{100 * value:.2f} %"] for name, value in certificate.accuracy.items())
        parts += ["<h2>Accuracy</h2>", table(("run", "accuracy"), rows)]
    for name, heading in COMPARISONS.items():
        parts += [f"<h2>{heading[0].upper()}{heading[1:]}</h2>", _differences(getattr(certificate, name))]
    operators = (
        [v.note.node, "WRONG" if v.wrong else "integer" if v.integer else "float", v.note.reason, v.note.help]
        for v in certificate.verdicts
    )
    parts += ["<h2>Operators</h2>", table(("operator", "computes", "why", "what to do"), operators)]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a head; nothing where there are no rows."""
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{column}</th>' for column in columns)}</tr>{cells}</table>" if cells else ""


def _differences(differences: Sequence[Difference]) -> str:
    """A row for every tensor that differs, with the histogram of its differences, and how many do not."""
    rows = []
    for difference in differences:
        if difference.differing:
            share = f"{100 * difference.differing / difference.values:.3f} %"
            detail = _histogram(difference) or f"{difference.signal_to_noise:.1f} dB"
            rows.append(
                f'<tr><td><code>{escape(difference.tensor)}</code></td><td class="number">{difference.differing:,}</td>'
                f'<td class="number">{share}</td><td>{detail}</td></tr>'
            )
    same = f'<p class="same">{len(differences) - len(rows)} of {len(differences)} tensors are equal in every value.</p>'
    header = "<tr><th>tensor</th><th>values that differ</th><th>share</th><th>by steps, or signal to noise</th></tr>"
    return same + (f"<table>{header}{''.join(rows)}</table>" if rows else "")


def _histogram(difference: Difference) -> str:
    """Bars over the differences in steps, their height logarithmic in the count."""
    shown = sorted(difference.steps.items(), key=lambda item: -item[1])[:41]
    if not shown:
        return ""
    highest = max(count for _, count in shown)
    bars = []
    for place, (step, count) in enumerate(sorted(shown)):
        height = 4 + 24 * (count.bit_length() / highest.bit_length())
        label = f"{count:,} values differ by {step:+d}"
        bars.append(
            f'<rect x="{place * 9}" y="{30 - height:.1f}" width="7" height="{height:.1f}" fill="#3568b0">'
            f"<title>{label}</title></rect>"
        )
    low, high = min(step for step, _ in shown), max(step for step, _ in shown)
    return f'<svg width="{len(shown) * 9}" height="30">{"".join(bars)}</svg> {low:+d} … {high:+d}'
