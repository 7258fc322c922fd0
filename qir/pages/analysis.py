"""An analysis as one self-contained HTML page, with plotly's plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from html import escape
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qir.analysis.results import Analysis, AnalyzedLayer, AnalyzedQuantizer
from qir.differences import decibels
from qir.files import write_all
from qir.pages.certificate import STYLE, table

SHOWN = 60
"""How many quantizers or layers a plot names, and of how many there are histograms."""


def has_plots() -> bool:
    """Whether plotly is installed."""
    return find_spec("plotly") is not None


def write_analysis(analysis: Analysis, folder: Path, others: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write analysis.json, analysis.html where plotly is installed, and `others` into the folder: all or none."""
    texts = {"analysis.json": analysis.as_json(), **others}
    if has_plots():
        texts["analysis.html"] = as_html(analysis)
    write_all({folder / name: partial(_fill, text) for name, text in texts.items()})


def _fill(text: str, beside: Path) -> None:
    beside.write_text(text, encoding="utf-8")


def as_html(analysis: Analysis) -> str:
    """One page that needs nothing beside it; plotly's own program is in it, so it has about 5 MB."""
    parts = [f"<h1>{escape(analysis.model)}</h1>", f"<p>{analysis.samples} samples.</p>", _whole(analysis)]
    if analysis.misfits:
        parts += ["<h2>Grids that do not fit what their tensors hold</h2>", _misfits(analysis.misfits)]
    for number, (title, text, figure) in enumerate(_figures(analysis)):
        drawn = figure.to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"plot{number}")
        parts += [f"<h2>{title}</h2>", f"<p>{text}</p>", drawn]
    parts += ["<h2>All grids, ranked</h2>", _quantizers(analysis.quantizers)]
    head = f'<meta charset="utf-8"><title>{escape(analysis.model)}</title><style>{STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


# -- tables ----------------------------------------------------------------------------------------------------------


def _whole(analysis: Analysis) -> str:
    rows = {"float": analysis.floating, "all quantizers": analysis.quantized, "weights alone": analysis.weights,
            "activations alone": analysis.activations}  # fmt: skip
    scores = [analysis.metric] if analysis.metric else []
    return table(
        ["quantizers", "SQNR of the outputs", *map(escape, scores)],
        ([name, decibels(m.sqnr), *([f"{m.score:.4f}" if m.score is not None else ""] if scores else [])]
         for name, m in rows.items()),
    )  # fmt: skip


def _misfits(quantizers: Sequence[AnalyzedQuantizer]) -> str:
    return table(
        ("quantizer", "its steps beside the best", "SQNR of the tensor", "with the best grid", "line"),
        ([q.name, f"{q.stretch or 1:.3g} times", decibels(q.sqnr), best(q), q.line]
         for q in quantizers),
    )  # fmt: skip


def _quantizers(quantizers: Sequence[AnalyzedQuantizer]) -> str:
    columns = ("quantizer", "grid", "tensor from", "to", "grid from", "to", "clipped", "SQNR", "best SQNR", "alone", 
               "all others", "line")  # fmt: skip
    return table(
        columns,
        ([q.name, q.grid, f"{q.low:.4g}", f"{q.high:.4g}", number(q.grid_low), number(q.grid_high),
          f"{100 * q.clipped:.3f} %", decibels(q.sqnr), best(q), decibels(q.alone.sqnr),
          decibels(q.without.sqnr), q.line] for q in quantizers),
    )  # fmt: skip


def best(quantizer: AnalyzedQuantizer) -> str:
    """The SQNR of the best grid, where there is a choice."""
    return "" if quantizer.stretch is None else decibels(quantizer.fitted_sqnr)


def number(value: float | None) -> str:
    """A number as text, if there is one."""
    return "" if value is None else f"{value:.4g}"


# -- plots -----------------------------------------------------------------------------------------------------------


def _figures(analysis: Analysis) -> Iterator[tuple[str, str, Any]]:
    """Title, explanation and figure of every plot."""
    layers, quantizers = analysis.layers, analysis.quantizers
    yield ("Error of every layer", "The SQNR of each layer's output beside the float model's, in the order of "
           "execution: in the quantized model, and of the layer alone, given what the float model gives it. What is "
           "equal is left out.", _layer_errors(layers))  # fmt: skip
    held = [layer for layer in layers if layer.quantizers]
    yield ("Sensitivity of layers", _about(held), _sensitivity(held))
    yield ("Sensitivity of grids", _about(quantizers), _sensitivity(quantizers))
    if analysis.metric is not None:
        title = f"Sensitivity of grids: {escape(analysis.metric)}"
        yield (title, "The same, as the metric rates it.", _sensitivity(quantizers, "score"))
    yield ("Ranges", "The ends of what each tensor holds, and those of its grid.", _ranges(quantizers))
    yield ("Histograms", "Values of each tensor, and the ends of its grid. Choose one.", _histograms(quantizers))


def _about(rows: Sequence[Any]) -> str:
    left = f" The {SHOWN} that cost most, of {len(rows)}." if len(rows) > SHOWN else ""
    return f"The SQNR of the model's outputs with these quantizers alone, and with all others.{left}"


def _layer_errors(layers: Sequence[AnalyzedLayer]) -> Any:
    from plotly import graph_objects as go

    names = [escape(layer.name) for layer in layers]
    figure = go.Figure()
    figure.add_scatter(x=names, y=[layer.sqnr for layer in layers], name="in the quantized model", mode="lines+markers")
    figure.add_scatter(x=names, y=[layer.own_sqnr for layer in layers], name="alone", mode="lines+markers")
    return _laid_out(figure, 450, yaxis_title="SQNR in dB")


def _sensitivity(rows: Sequence[AnalyzedLayer | AnalyzedQuantizer], what: str = "sqnr") -> Any:
    from plotly import graph_objects as go

    def cost(row: AnalyzedLayer | AnalyzedQuantizer) -> float:
        found = getattr(row.alone, what)
        return float("inf") if found is None else float(found)

    shown = sorted(rows, key=cost)[:SHOWN]
    names = [escape(row.name) for row in shown]
    figure = go.Figure()
    figure.add_bar(y=names, x=[getattr(row.alone, what) for row in shown], name="alone", orientation="h")
    figure.add_bar(y=names, x=[getattr(row.without, what) for row in shown], name="all others", orientation="h")
    title = "SQNR in dB" if what == "sqnr" else what
    return _laid_out(figure, 160 + 26 * len(shown), xaxis_title=title, yaxis_autorange="reversed")


def _ranges(quantizers: Sequence[AnalyzedQuantizer]) -> Any:
    from plotly import graph_objects as go

    shown = quantizers[:SHOWN]
    figure = go.Figure()
    for name, ends in (("tensor", [(q.low, q.high) for q in shown]),
                       ("grid", [(q.grid_low, q.grid_high) for q in shown])):  # fmt: skip
        known = [(escape(q.name), low, high) for q, (low, high) in zip(shown, ends, strict=True)
                 if low is not None and high is not None and q.kind != "bias"]  # fmt: skip
        names, lows, highs = zip(*known, strict=True) if known else ((), (), ())
        spans = [high - low for low, high in zip(lows, highs, strict=True)]
        figure.add_bar(y=names, x=spans, base=lows, name=name, orientation="h")
    return _laid_out(figure, 160 + 26 * len(shown), yaxis_autorange="reversed")


def _histograms(quantizers: Sequence[AnalyzedQuantizer]) -> Any:
    from plotly import graph_objects as go

    shown = [quantizer for quantizer in quantizers if quantizer.histogram.counts][:SHOWN]
    figure = go.Figure()
    buttons = []
    for place, quantizer in enumerate(shown):
        bins = quantizer.histogram
        width = (bins.high - bins.low) / len(bins.counts)
        middles = [bins.low + (index + 0.5) * width for index in range(len(bins.counts))]
        figure.add_bar(x=middles, y=bins.counts, width=width, visible=place == 0, name=escape(quantizer.name))
        ends = [
            end for end in (quantizer.grid_low, quantizer.grid_high) if end is not None and quantizer.kind != "bias"
        ]
        lines = [{"type": "line", "x0": end, "x1": end, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot"}}
                 for end in ends]  # fmt: skip
        visible = [other == place for other in range(len(shown))]
        buttons.append({"label": escape(quantizer.name), "method": "update",
                        "args": [{"visible": visible}, {"shapes": lines}]})  # fmt: skip
        if place == 0:
            figure.update_layout(shapes=lines)
    figure.update_layout(updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.15}], showlegend=False)
    return _laid_out(figure, 500, yaxis_title="values", yaxis_type="log")


def _laid_out(figure: Any, height: int, **axes: Any) -> Any:
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return figure.update_layout(height=height, template="plotly_white", barmode="group", legend=legend, **axes)
