"use strict";
// Small charts in the panel: what a tensor holds beside what its grid covers, and the scales of channels.
function shape(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const CHART = { width: 330, height: 132, left: 6, right: 6, top: 8, bottom: 30 };

/** Bars, their height logarithmic in the count; those beyond the grid are clipped, and drawn in another colour. */
function histogram(found, encoding) {
  const grid = encoding && encoding.low !== undefined && encoding.low !== null ? encoding : null;
  const low = Math.min(found.low, grid ? grid.low : found.low),
    high = Math.max(found.high, grid ? grid.high : found.high);
  const { width, height, left, right, top, bottom } = CHART,
    floor = height - bottom;
  const x = (value) => left + ((value - low) / (high - low || 1)) * (width - left - right);
  const most = Math.log1p(found.counts.reduce((a, b) => Math.max(a, b), 1)),
    step = (found.high - found.low) / found.counts.length;
  const total = found.counts.reduce((a, b) => a + b, 0);
  const chart = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
  chart.append(
    shape(
      "title",
      {},
      `Histogram of ${total.toLocaleString("en")} values from ${short(found.least ?? found.low)} to ${short(found.most ?? found.high)}, heights logarithmic`,
    ),
  );
  if (grid)
    chart.append(
      shape("rect", {
        x: x(grid.low),
        y: top,
        width: Math.max(1, x(grid.high) - x(grid.low)),
        height: floor - top,
        fill: colors["integer-fill"],
      }),
    );
  found.counts.forEach((count, bar) => {
    if (!count) return;
    const from = found.low + bar * step,
      tall = Math.max(1.5, ((floor - top) * Math.log1p(count)) / most);
    const clipped = grid && (from + step < grid.low || from > grid.high);
    const drawn = shape("rect", {
      x: x(from),
      y: floor - tall,
      width: Math.max(0.8, x(from + step) - x(from) - 0.5),
      height: tall,
      fill: clipped ? colors.removed : colors["integer-line"],
    });
    drawn.append(
      shape(
        "title",
        {},
        `${count.toLocaleString("en")} values from ${short(from)} to ${short(from + step)}${clipped ? ", clipped" : ""}`,
      ),
    );
    chart.append(drawn);
  });
  chart.append(shape("line", { x1: left, x2: width - right, y1: floor, y2: floor, stroke: colors.muted }));
  const label = (value, text, anchor, down) =>
    chart.append(shape("text", { x: x(value), y: floor + down, "text-anchor": anchor }, text));
  label(low, short(low, 3), "start", 12);
  label(high, short(high, 3), "end", 12);
  if (low < 0 && high > 0 && x(0) > 60 && x(0) < width - 60) label(0, "0", "middle", 12);
  if (grid) label((low + high) / 2, `grid ${short(grid.low, 3)} … ${short(grid.high, 3)}`, "middle", 25);
  return chart;
}

/** The scale of each channel or block, as a line. */
function scalesChart(encoding) {
  const { width, left, right } = CHART,
    height = 74,
    floor = 52,
    most = encoding.scale_high;
  const chart = shape("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart", role: "img" });
  const step = (width - left - right) / encoding.scales.length;
  chart.append(
    shape("title", {}, `${encoding.count} scales from ${short(encoding.scale_low)} to ${short(encoding.scale_high)}`),
  );
  encoding.scales.forEach((scale, channel) => {
    const tall = Math.max(1, (scale / most) * (floor - 6));
    const bar = shape("rect", {
      x: left + channel * step,
      y: floor - tall,
      width: Math.max(0.4, step - (step > 3 ? 1 : 0)),
      height: tall,
      fill: colors["quantizer-line"],
    });
    bar.append(shape("title", {}, `${channel}: ${short(scale)}`));
    chart.append(bar);
  });
  chart.append(
    shape(
      "text",
      { x: left, y: height - 8 },
      `scale of each channel, up to ${short(most)}` +
        (encoding.count > encoding.scales.length ? `; the first ${encoding.scales.length} of ${encoding.count}` : ""),
    ),
  );
  return chart;
}
