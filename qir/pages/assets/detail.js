"use strict";
// The panel on the right: everything about the selected node, or module, or the stage.
const part = (title, ...children) => [make("h3", {}, title), ...children];
const pairs = (rows) =>
  make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
const chip = (text, color) => {
  const element = make("span", { class: "chip" }, text);
  element.style.color = color;
  return element;
};

function nodeLink(view, leaf, text) {
  return make("button", { class: "link", onclick: () => go(leaf) }, text || `%${view.leaves[leaf].name}`);
}

/** Fill the panel. `selected` is a box of the scene, or null for the stage. */
function detail(view, selected) {
  const panel = byId("detail");
  if (!selected) panel.replaceChildren(...aboutStage(view));
  else if (selected.leaf === null) panel.replaceChildren(...aboutModule(view, selected.module));
  else panel.replaceChildren(...aboutNode(view, selected.leaf));
}

function aboutNode(view, leaf) {
  const record = view.leaves[leaf],
    mark = view.marks[leaf],
    numbers = numbersOf(view, leaf);
  const chips = [chip(record.kind, colors[`${record.kind}-line`])];
  if (mark)
    chips.push(
      chip(`${SIGNS[mark]} ${mark}${view.changed[leaf] ? `: ${view.changed[leaf].join(", ")}` : ""}`, colors[mark]),
    );
  const lines = record.lines.map((line) => DATA.lines[line]);
  return [
    make("h2", {}, record.op),
    make("p", {}, make("code", {}, `%${record.name}`)),
    make("p", {}, ...chips),
    ...(mark === "changed" ? part("What the pass changed", difference(view, leaf)) : []),
    ...encodingPart(record, numbers),
    ...numbersPart(numbers),
    ...(record.opaque ? part("Why it is opaque", make("p", {}, record.opaque)) : []),
    ...notesPart(view, leaf),
    ...(lines.length ? part(lines.length > 1 ? "Source lines" : "Source line", ...lines.map(sourceLine)) : []),
    ...layerPart(view, leaf),
    ...(record.reads.length
      ? part("Reads", pairs(record.reads.map((read, port) => [String(port), operand(view, read)])))
      : []),
    ...(record.gives.length
      ? part("Gives", pairs(record.gives.map(([name, type]) => [`%${name}`, make("code", {}, type)])))
      : []),
    ...readersPart(view, leaf),
    ...(record.attrs.length
      ? part("Attributes", pairs(record.attrs.map(([name, text]) => [name, textElement(text)])))
      : []),
    ...historyPart(view, leaf),
  ];
}

const textElement = (text) => make(text.includes("\n") ? "pre" : "code", {}, text);

/** What data and `qir analyze` showed. */
function numbersPart({ sqnr, analysis }) {
  const rows = Object.entries(analysis || {}).map(([name, value]) => [
    name,
    value === null ? "nothing differs" : short(value),
  ]);
  const ratio = make("p", {}, sqnr === null ? "nothing is lost" : `${sqnr} dB`);
  return [
    ...(sqnr === undefined ? [] : part("Signal to quantization noise", ratio)),
    ...(rows.length ? part("Analysis", pairs(rows)) : []),
  ];
}

/** The path of a node, and the modules around it. */
function layerPart(view, leaf) {
  const { path } = view.leaves[leaf];
  const link = (index) => make("button", { class: "link", onclick: () => goToModule(index) }, view.modules[index].path);
  const around = modulesAround(view, leaf).flatMap((index) => [link(index), make("br")]);
  return path ? part("Layer", make("p", {}, ...around, make("code", {}, path))) : [];
}

function operand(view, read) {
  if (read === null) return make("span", { class: "muted" }, "left out");
  if (read.literal !== undefined) return make("code", {}, read.literal);
  const source = view.byName.get(read.name);
  if (read.weight === undefined && source !== undefined)
    return make("span", {}, nodeLink(view, source, `%${read.name}`), " ", make("code", {}, read.type));
  const weight = DATA.weights[read.weight];
  const range = weight && weight.low !== undefined ? `, ${short(weight.low)} … ${short(weight.high)}` : "";
  return make("span", {}, make("code", {}, `%${read.name}`), ` weight `, make("code", {}, read.type), range);
}

function readersPart(view, leaf) {
  const readers = [...new Set(view.gives[leaf].flatMap((value) => view.stage.reads[value].slice(1)))];
  if (!readers.length) return [];
  const shown = readers
    .slice(0, 40)
    .map((reader) => make("p", {}, nodeLink(view, reader), ` ${view.leaves[reader].op}`));
  return part(`Read by${readers.length > 40 ? ` (40 of ${readers.length})` : ""}`, ...shown);
}

function encodingPart(record, numbers) {
  const encoding = encodingOf(record);
  const chart = numbers.histogram ? [histogram(numbers.histogram, encoding)] : [];
  if (!encoding) return chart.length ? part("Values", ...chart) : [];
  const rows = [
    ["dtype", encoding.dtype],
    ["grid", encoding.scheme],
    ["one scale for each", encoding.for],
  ];
  if (encoding.count)
    rows.push([
      "scale",
      encoding.count > 1
        ? `${short(encoding.scale_low)} … ${short(encoding.scale_high)} (${encoding.count})`
        : short(encoding.scales[0], 6),
    ]);
  if (encoding.zero_points) rows.push(["zero point", [...new Set(encoding.zero_points)].slice(0, 6).join(", ")]);
  if (encoding.low !== undefined) rows.push(["covers", `${short(encoding.low)} … ${short(encoding.high)}`]);
  if (!encoding.calibrated) rows.push(["calibrated", "not yet"]);
  return part("Encoding", pairs(rows), ...chart, ...(encoding.count > 1 ? [scalesChart(encoding)] : []));
}

function sourceLine(line) {
  const place = line.file ? `${line.file}:${line.line}` : "",
    scope = line.scope ? ` in ${line.scope}` : "";
  return make(
    "div",
    {},
    make("code", {}, place),
    make("span", { class: "muted" }, scope),
    line.text ? make("pre", {}, line.text.trim()) : null,
  );
}

/** What passes say of a node: of the shown stage first, then of the others. */
function notesPart(view, leaf) {
  const same = view.stage.same[leaf],
    found = [];
  DATA.stages.forEach((stage, number) => {
    for (const note of stage.notes) if (note.about === same) found.push([number, stage, note]);
  });
  found.sort((a, b) => (b[0] === view.number) - (a[0] === view.number) || a[0] - b[0]);
  if (!found.length) return [];
  return part(
    "What passes say",
    ...found.map(([number, stage, note]) =>
      make(
        "div",
        { class: `note ${note.status}` },
        make("button", { class: "link", onclick: () => show({ number, side: "after" }) }, stage.title.split("{")[0]),
        ` ${note.status}: ${note.reason}`,
        note.help ? make("p", { class: "muted" }, `help: ${note.help}`) : null,
      ),
    ),
  );
}

/** The other stages in which a node is something else. */
function historyPart(view, leaf) {
  const same = view.stage.same[leaf],
    rows = [];
  DATA.stages.forEach((stage, number) => {
    const other = viewOf(number),
      there = other.leafOf.get(same);
    const mark = there === undefined ? "" : other.marks[there] || (number === 0 ? "there" : "");
    if (mark)
      rows.push(
        make(
          "p",
          {},
          make(
            "button",
            { class: "link", onclick: () => show({ number, side: "after" }, same) },
            stage.title.split("{")[0],
          ),
          ` ${mark}${other.changed[there] ? `: ${other.changed[there].join(", ")}` : ""}`,
        ),
      );
  });
  return DATA.stages.length > 1 && rows.length ? part("In other stages", ...rows) : [];
}

/** What a changed node was and is, part by part. */
function difference(view, leaf) {
  const stages = [DATA.stages[view.number - 1], DATA.stages[view.number]],
    same = view.stage.same[leaf];
  const [old, now] = stages.map((stage) => DATA.records[stage.leaves[stage.same.indexOf(same)]]);
  const texts = {
    operator: (r) => r.op,
    operands: (r) => r.reads.map((read) => (read === null ? "_" : (read.literal ?? `%${read.name}`))).join(", "),
    attributes: (r) => r.attrs.map((pair) => pair.join("=")).join(", "),
    types: (r) => r.gives.map((pair) => pair[1]).join(", "),
    layer: (r) => r.path,
    encoding: (r) => (encodingOf(r) || { text: "none" }).text,
  };
  const brief = (text) => (text.length > 400 ? `${text.slice(0, 400)}…` : text);
  return make(
    "div",
    {},
    ...view.changed[leaf].map((name) =>
      make(
        "pre",
        {},
        `${name}\n`,
        make("span", { class: "old" }, `− ${brief(texts[name](old))}\n`),
        make("span", { class: "new" }, `+ ${brief(texts[name](now))}`),
      ),
    ),
  );
}
