"use strict";
// The page as a whole: what is shown, what is selected, and the keys.
const state = {
  number: DATA.stages.length - 1,
  side: "after",
  open: new Set(),
  selected: null,
  found: null,
  scene: null,
  mapSpot: null,
};
const canvas = byId("graph");
const current = () => viewOf(state.number, state.side);
let waiting = false;

/** Draw with the next frame. */
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    timed("draw", () => draw(canvas, state.scene, camera, lookOf()));
    state.mapSpot = drawMap(byId("map"), state.scene, camera, {
      width: canvas.clientWidth,
      height: canvas.clientHeight,
    });
  });
}

/** The selected node, null where nothing or a module is selected. */
const selectedLeaf = () => (state.selected ? state.selected.leaf : null);

/** What stands out: the selected box and the lines at it, and what the search found. */
function lookOf() {
  const foundModules = new Set((state.found || []).flatMap((leaf) => modulesAround(current(), leaf))),
    leaf = selectedLeaf();
  return {
    selected: state.selected,
    found: state.found && new Set(state.found),
    foundModules,
    related: leaf === null ? null : relatedLines(leaf),
  };
}

/** For a line, 2 where it carries what `leaf` gives, 1 where it brings what it reads, else 0. */
function relatedLines(leaf) {
  const view = current(),
    gives = new Set(view.gives[leaf]),
    takes = new Set(view.takes[leaf]);
  const inside = new Map([[view.home.get(leaf), leaf]]);
  for (let index = view.home.get(leaf); index; index = view.around.get(index))
    inside.set(view.around.get(index), -1 - index);
  const towards = (line) =>
    line.target === inside.get(line.module) || (!inside.has(line.module) && line.target === `o${line.value}`);
  const needed = new Map();
  for (const line of state.scene.lines) {
    const key = `${line.module} ${line.value}`;
    if (takes.has(line.value) && line.target !== null && towards(line))
      needed.set(key, Math.max(needed.get(key) ?? 0, line.step));
  }
  return (line) => {
    if (gives.has(line.value)) return 2;
    if (!takes.has(line.value)) return 0;
    if (line.target !== null) return towards(line) ? 1 : 0;
    return line.step <= (needed.get(`${line.module} ${line.value}`) ?? -1) ? 1 : 0;
  };
}

/** Place everything anew, after modules opened or closed or the stage changed. */
function arrange() {
  const view = current(),
    old = state.selected;
  state.scene = timed("place", () => place(view, state.open));
  state.selected =
    (old && (old.leaf === null ? state.scene.boxOfModule.get(old.module) : state.scene.boxOfLeaf.get(old.leaf))) ||
    null;
}

/** Show another stage, with the node that has the lasting number `same` selected, or else the one that is selected now.
    It stays where it is on the screen; without a selection, what is in the middle does. */
function show({ number, side }, same = current().stage.same[selectedLeaf()]) {
  const anchors = state.scene.boxes.map((box) => ({
    key: keyOf(box),
    x: (box.x - camera.x) * camera.scale,
    y: (box.y - camera.y) * camera.scale,
  }));
  const middle =
    selectedLeaf() !== null
      ? state.selected
      : { x: camera.x + canvas.clientWidth / camera.scale / 2, y: camera.y + canvas.clientHeight / camera.scale / 2 };
  const far = ({ x, y }) =>
    Math.hypot(x - (middle.x - camera.x) * camera.scale, y - (middle.y - camera.y) * camera.scale);
  anchors.sort((a, b) => far(a) - far(b));
  Object.assign(state, { number, side, selected: null });
  arrange();
  stageList();
  if (state.found) found.refresh();
  const leaf = same === undefined ? undefined : current().leafOf.get(same),
    box = leaf === undefined ? null : boxOf(leaf);
  const places = new Map(state.scene.boxes.map((box) => [keyOf(box), box]));
  const anchor = anchors.find(({ key }) => places.has(key)),
    place = anchor && places.get(anchor.key);
  if (place) Object.assign(camera, { x: place.x - anchor.x / camera.scale, y: place.y - anchor.y / camera.scale });
  select(box);
  if (box) reveal(canvas, box);
}

/** What a box is known by in other stages. */
const keyOf = (box) => (box.leaf === null ? current().modules[box.module].path : current().stage.same[box.leaf]);

/** The box of a leaf, its modules opened. */
function boxOf(leaf) {
  const closed = modulesAround(current(), leaf)
    .map((index) => current().modules[index].path)
    .filter((path) => !state.open.has(path));
  closed.forEach((path) => state.open.add(path));
  if (closed.length) arrange();
  return state.scene.boxOfLeaf.get(leaf);
}

function select(box) {
  state.selected = box;
  detail(current(), box);
  if (!byId("tables").hidden) tables(current(), box);
  const record = box && box.leaf !== null ? current().leaves[box.leaf] : null;
  const told = record && [record.op, record.name, ...record.gives.map((pair) => pair[1]), current().marks[box.leaf]];
  byId("live").textContent = told
    ? told.filter(Boolean).join(", ")
    : box
      ? `module ${current().modules[box.module].path}`
      : "";
  const hash = new URLSearchParams();
  if (DATA.stages.length > 1) hash.set("stage", state.number);
  if (state.side === "before") hash.set("side", "before");
  if (record) hash.set("node", record.name);
  history.replaceState(null, "", `#${hash}`);
  redraw();
}

function go(leaf) {
  if (leaf === undefined) return;
  const box = boxOf(leaf);
  select(box);
  reveal(canvas, box);
}

function goToModule(index) {
  boxOf(leavesIn(current(), index)[0]);
  select(state.scene.boxOfModule.get(index));
  reveal(canvas, state.selected);
}

/** Open or close a module; its left upper corner stays where it is. */
function toggle(index) {
  const { path } = current().modules[index],
    before = state.scene.boxOfModule.get(index);
  state.open.has(path) ? state.open.delete(path) : state.open.add(path);
  arrange();
  const box = state.scene.boxOfModule.get(index);
  Object.assign(camera, {
    x: camera.x + box.x + box.width / 2 - before.x - before.width / 2,
    y: camera.y + box.y - before.y,
  });
  select(box);
}

/** Open modules from the outside in, as long as no more than `most` boxes are to be seen. */
function openUpTo(most) {
  const view = current(),
    queue = [0];
  let shown = view.modules[0].items.length;
  state.open = new Set();
  for (let next = 0; next < queue.length; next += 1) {
    for (const item of view.modules[queue[next]].items) {
      if (typeof item !== "number" || item >= 0) continue;
      const module = view.modules[-1 - item],
        more = module.items.filter((inner) => typeof inner === "number").length - 1;
      if (shown + more > most || (module.main !== null && view.leaves.length > 60)) continue;
      shown += more;
      state.open.add(module.path);
      queue.push(-1 - item);
    }
  }
}

function openAll(all) {
  state.open = new Set(
    all
      ? current()
          .modules.slice(1)
          .map((module) => module.path)
      : [],
  );
  arrange();
  select(null);
  begin(canvas, state.scene);
}

// -- the list of stages ---------------------------------------------------------------------------------------------

function stageList() {
  const list = byId("stages");
  document.querySelector("main").classList.toggle("single", DATA.stages.length < 2);
  list.replaceChildren(
    make("h2", { hidden: true }, "Stages"),
    ...DATA.stages.flatMap((stage, number) => {
      const [name, ...options] = stage.title.split("{"),
        told = number ? counts(number) : { added: 0, removed: 0, changed: 0 };
      const what = Object.entries(told)
        .filter(([, count]) => count)
        .map(([mark, count]) => make("span", { class: mark }, `${SIGNS[mark]}${count} ${mark}`));
      const button = make(
        "button",
        {
          class: `stage ${number && !what.length ? "same" : ""}`,
          "aria-current": String(number === state.number),
          onclick: () => show({ number, side: "after" }),
        },
        make("span", { class: "name" }, `${number ? `${number}. ` : ""}${name}`),
        options.length ? make("span", { class: "options", title: stage.title }, `{${options.join("{")}`) : null,
        make(
          "span",
          { class: "what" },
          ...(what.length ? what : [number ? "no change" : `${stage.leaves.length} nodes`]),
          number && stage.numerics ? make("span", {}, stage.numerics) : "",
        ),
      );
      return number && number === state.number ? [button, sides()] : [button];
    }),
  );
  list.querySelector("[aria-current='true']").scrollIntoView({ block: "nearest", inline: "nearest" });
}

function sides() {
  const one = (side) =>
    make(
      "button",
      { "aria-pressed": String(state.side === side), onclick: () => show({ number: state.number, side }) },
      side[0].toUpperCase() + side.slice(1),
    );
  return make(
    "div",
    { class: "sides", role: "group", "aria-label": "Before or after the pass" },
    one("before"),
    one("after"),
  );
}

function legend() {
  const kinds = KINDS.slice(0, 5).filter((kind) => DATA.records.some((record) => record.kind === kind)),
    marks = DATA.stages.length > 1 ? Object.entries(SIGNS) : [];
  const swatch = (label, fill, line, sign = "") => {
    const box = make("i", {}, sign);
    Object.assign(box.style, { background: fill, borderColor: line, color: colors.panel });
    return make("li", {}, box, label);
  };
  byId("legend").replaceChildren(
    ...kinds.map((kind) => swatch(kind, colors[`${kind}-fill`], colors[`${kind}-line`])),
    ...marks.map(([mark, sign]) => swatch(mark, colors[mark], colors[mark], sign)),
  );
}
