"use strict";
// Sortable tables of the shown stage. Only the rows in sight are in the document, so that many thousand are as quick as few.
const ROW = 26;

const column = (title, read, number = false) => ({ title, read, number });
const decibel = (value) => (value === undefined ? undefined : value === null ? Infinity : value);

/** The tables of a view: for each its columns and rows; `leaf` of a row is what a click goes to. */
function tablesOf(view) {
  const nodes = view.leaves.map((record, leaf) => ({
    record,
    leaf,
    numbers: numbersOf(view, leaf),
    encoding: encodingOf(record),
  }));
  const computing = nodes.filter(({ record }) => record.kind !== "input" && record.kind !== "output");
  const quantizers = nodes.filter(({ encoding }) => encoding);
  return {
    Nodes: {
      rows: computing,
      columns: [
        column("name", (row) => `%${row.record.name}`),
        column("operator", (row) => row.record.op),
        column("kind", (row) => row.record.kind),
        column("layer", (row) => row.record.path),
        column("type", (row) => row.record.gives.map((pair) => pair[1]).join(", ")),
        column("line", (row) => lineOf(row.record)),
        ...measured(computing),
        column("change", (row) => view.marks[row.leaf]),
      ],
    },
    Weights: weightTable(view),
    Quantizers: {
      rows: quantizers,
      columns: [
        column("tensor", (row) => `%${row.record.reads[0]?.name ?? row.record.name}`),
        column("dtype", (row) => row.encoding.dtype),
        column("grid", (row) => row.encoding.scheme),
        column("a scale for each", (row) => row.encoding.for),
        column("scale", (row) => row.encoding.scale_high, true),
        column("zero point", (row) => row.encoding.zero_points?.[0], true),
        column("grid low", (row) => row.encoding.low, true),
        column("grid high", (row) => row.encoding.high, true),
        ...measured(quantizers),
        column("layer", (row) => row.record.path),
      ],
    },
    "In float": {
      rows: DATA.floats.rows.map((row) => ({
        ...row,
        leaf: row.about === null ? undefined : view.leafOf.get(row.about),
      })),
      empty: DATA.floats.reason,
      columns: [
        column("operator", (row) => row.op),
        column("layer", (row) => row.layer),
        column("reason", (row) => row.reason),
        column("help", (row) => row.help),
        column("line", (row) => row.line),
        column("node", (row) => row.node),
      ],
    },
    Notes: {
      rows: DATA.stages.flatMap((stage, number) =>
        stage.notes.map((note) => ({
          note,
          stage,
          number,
          leaf: view.leafOf.get(note.about),
          open: opener(number, note.about),
        })),
      ),
      columns: [
        column("#", (row) => row.number, true),
        column("pass", (row) => row.stage.title.split("{")[0]),
        column("was", (row) => row.note.status),
        column("reason", (row) => row.note.reason),
        column("help", (row) => row.note.help),
        column("about", (row) => row.note.node),
      ],
    },
  };
}

/** What shows the operation that a note is about, in the stage of the note: before its pass, where the pass removed it. */
function opener(number, about) {
  if (about === null || !number) return undefined;
  return () => show({ number, side: viewOf(number).leafOf.has(about) ? "after" : "before" }, about);
}

/** The columns of numbers that any of the rows has. */
function measured(rows) {
  const names = new Set(rows.flatMap((row) => Object.keys(row.numbers.analysis || {})));
  const read = (name) => (row) =>
    name.endsWith("sqnr") ? decibel(row.numbers.analysis?.[name]) : row.numbers.analysis?.[name];
  const columns = [...names].map((name) => column(name.replace("sqnr", "SQNR, dB"), read(name), true));
  return rows.some((row) => row.numbers.sqnr !== undefined)
    ? [column("SQNR, dB", (row) => decibel(row.numbers.sqnr), true), ...columns]
    : columns;
}

function weightTable(view) {
  const rows = new Map();
  view.leaves.forEach((record, leaf) =>
    record.reads.forEach((read) => {
      if (!read || read.weight === undefined) return;
      if (!rows.has(read.weight))
        rows.set(read.weight, {
          weight: DATA.weights[read.weight],
          name: read.name,
          type: read.type,
          leaf,
          readers: 0,
          encoding: encodingOf(record),
        });
      rows.get(read.weight).readers += 1;
    }),
  );
  return {
    rows: [...rows.values()],
    columns: [
      column("weight", (row) => row.weight.paths.join(", ") || row.name),
      column("type", (row) => row.type),
      column("elements", (row) => row.weight.elements, true),
      column("bytes", (row) => row.weight.bytes, true),
      column("lowest", (row) => row.weight.low, true),
      column("highest", (row) => row.weight.high, true),
      column("quantized to", (row) =>
        row.encoding ? `${row.encoding.dtype}, a scale for each ${row.encoding.for}` : "",
      ),
      column("readers", (row) => row.readers, true),
    ],
  };
}

const tableState = { name: "Nodes", sort: null, down: false, filter: "" };

/** Fill the drawer with the chosen table. */
function tables(view, selected) {
  const all = tablesOf(view),
    drawer = byId("tables"),
    table = all[tableState.name];
  const tabs = Object.entries(all).map(([name, { rows }]) =>
    make(
      "button",
      {
        role: "tab",
        "aria-selected": String(name === tableState.name),
        onclick: () => {
          Object.assign(tableState, { name, sort: null, filter: "" });
          tables(view, selected);
        },
      },
      `${name} (${rows.length.toLocaleString("en")})`,
    ),
  );
  const filter = make("input", {
    type: "search",
    placeholder: "Filter these rows",
    "aria-label": "Filter the rows of this table",
    value: tableState.filter,
  });
  filter.addEventListener("input", () => {
    tableState.filter = filter.value;
    fill();
  });
  const body = make("tbody"),
    scroller = make("div", { class: "rows", tabindex: "0", "aria-label": tableState.name });
  const heads = table.columns.map((one, index) =>
    make(
      "th",
      { scope: "col", class: one.number ? "number" : "" },
      make("button", { onclick: () => sortBy(index) }, one.title),
    ),
  );
  const grid = make("table", { "aria-label": tableState.name }, make("thead", {}, make("tr", {}, ...heads)), body);
  let rows = [];

  function sortBy(index) {
    tableState.down = tableState.sort === index ? !tableState.down : table.columns[index].number;
    tableState.sort = index;
    fill();
  }

  const fill = () => timed("table", refill);

  function refill() {
    rows = arrangedRows(table);
    heads.forEach((head, index) => {
      head.setAttribute("aria-sort", tableState.sort !== index ? "none" : tableState.down ? "descending" : "ascending");
      head.firstChild.textContent =
        table.columns[index].title + (tableState.sort !== index ? "" : tableState.down ? " ↓" : " ↑");
    });
    grid.setAttribute("aria-rowcount", String(rows.length + 1));
    showRows();
  }

  function showRows() {
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 10),
      last = Math.min(rows.length, first + 80);
    const space = (count) => {
      const row = make("tr", { "aria-hidden": "true" });
      row.style.height = `${count * ROW}px`;
      return row;
    };
    body.replaceChildren(
      space(first),
      ...rows.slice(first, last).map((row, position) => rowElement(table, row, first + position, selected)),
      space(rows.length - last),
    );
  }

  scroller.addEventListener("scroll", showRows);
  scroller.append(table.rows.length ? grid : make("p", {}, table.empty || "There is nothing of this kind."));
  drawer.replaceChildren(make("div", { class: "tabs", role: "tablist" }, ...tabs, filter), scroller);
  if (table.rows.length) fill();
}

function arrangedRows(table) {
  const words = tableState.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = words.length
    ? table.rows.filter((row) => {
        const text = table.columns
          .map((one) => one.read(row) ?? "")
          .join("\n")
          .toLowerCase();
        return words.every((word) => text.includes(word));
      })
    : [...table.rows];
  if (tableState.sort === null) return rows;
  const { read } = table.columns[tableState.sort],
    sign = tableState.down ? -1 : 1;
  const missing = (value) => value === undefined || value === null || value === "";
  const compare = (a, b) =>
    missing(a) || missing(b)
      ? missing(a) - missing(b)
      : sign *
        (typeof a === "number" && typeof b === "number"
          ? a === b
            ? 0
            : a - b
          : String(a).localeCompare(String(b), "en", { numeric: true }));
  return rows.sort((a, b) => compare(read(a), read(b)));
}

function rowElement(table, row, position, selected) {
  const cells = table.columns.map((one) => {
    const value = one.read(row),
      text =
        value === Infinity
          ? "exact"
          : typeof value !== "number"
            ? String(value ?? "")
            : one.title.endsWith("dB")
              ? value.toFixed(1)
              : short(value);
    return make(
      "td",
      { class: one.number ? "number" : "", title: text.length > 24 ? text.slice(0, 500) : null },
      text.slice(0, 500),
    );
  });
  const chosen = row.leaf !== undefined && selected && selected.leaf === row.leaf;
  const open = row.open || (row.leaf === undefined ? null : () => go(row.leaf));
  return make(
    "tr",
    {
      "aria-rowindex": position + 2,
      class: chosen ? "chosen" : "",
      tabindex: open && "0",
      onclick: () => open?.(),
      onkeydown: (event) => {
        if (event.key === "Enter") open?.();
      },
    },
    ...cells,
  );
}
