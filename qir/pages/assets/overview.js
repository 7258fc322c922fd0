"use strict";
// The panel on the right, of a module or of the stage.
function aboutModule(view, index) {
  const module = view.modules[index],
    leaves = leavesIn(view, index),
    operators = new Map();
  leaves.forEach((leaf) => operators.set(view.leaves[leaf].op, (operators.get(view.leaves[leaf].op) || 0) + 1));
  const rows = [...operators].sort((a, b) => b[1] - a[1]).map(([op, count]) => [op, String(count)]);
  return [
    make("h2", {}, module.path),
    make("p", {}, `a module of ${leaves.length} nodes`),
    make("button", { onclick: () => toggle(index) }, state.open.has(module.path) ? "Close (Enter)" : "Open (Enter)"),
    ...part("Operators", pairs(rows)),
    ...part(
      "Nodes",
      ...leaves.slice(0, 60).map((leaf) => make("p", {}, nodeLink(view, leaf), ` ${view.leaves[leaf].op}`)),
    ),
  ];
}

function leavesIn(view, index) {
  return view.modules[index].items.flatMap((item) =>
    typeof item === "string" ? [] : item < 0 ? leavesIn(view, -1 - item) : [item],
  );
}

function aboutStage(view) {
  const operators = new Map(),
    nodes = view.leaves.filter((record) => record.kind !== "input" && record.kind !== "output");
  nodes.forEach((record) => operators.set(record.op, (operators.get(record.op) || 0) + 1));
  const marked = view.marks.map((mark, leaf) => [mark, leaf]).filter(([mark]) => mark),
    notes = view.stage.notes.filter((note) => note.about === null);
  const typeOf = (record) => (record.gives.length ? record.gives[0][1] : record.reads[0].type) || "";
  const border = (kind) =>
    view.leaves.flatMap((record, leaf) =>
      record.kind === kind ? [[nodeLink(view, leaf), make("code", {}, typeOf(record))]] : [],
    );
  return [
    make("h2", {}, view.side === "before" ? `before ${DATA.stages[view.number].title}` : view.stage.title),
    make("p", {}, `${nodes.length} operations`),
    ...part("Inputs", pairs(border("input"))),
    ...part("Outputs", pairs(border("output"))),
    ...(marked.length
      ? part(
          `What the pass did (${marked.length})`,
          ...marked
            .slice(0, 200)
            .map(([mark, leaf]) =>
              make(
                "p",
                {},
                make("span", { class: mark }, `${SIGNS[mark]} `),
                nodeLink(view, leaf),
                ` ${view.leaves[leaf].op}`,
              ),
            ),
        )
      : []),
    ...part("Operators", pairs([...operators].sort((a, b) => b[1] - a[1]).map(([op, count]) => [op, String(count)]))),
    ...(notes.length
      ? part(
          "Other notes",
          ...notes
            .slice(0, 60)
            .map((note) =>
              make(
                "div",
                { class: `note ${note.status}` },
                `${note.status}: ${note.reason}`,
                make("p", { class: "muted" }, note.node),
              ),
            ),
        )
      : []),
  ];
}
