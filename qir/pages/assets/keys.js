"use strict";
// Keys, buttons, links into the page, and the start.
const KEYS = [
  ["/", "search", () => byId("query").select()],
  ["f", "show the whole graph", () => fit(canvas, state.scene)],
  ["g", "go to the beginning", () => begin(canvas, state.scene)],
  ["+", "zoom in", () => zoomMiddle(1.3)],
  ["-", "zoom out", () => zoomMiddle(1 / 1.3)],
  ["e", "open all modules", () => openAll(true)],
  ["c", "close all modules", () => openAll(false)],
  [
    "Enter",
    "open or close the selected module",
    () => {
      if (state.selected && state.selected.leaf === null) toggle(state.selected.module);
    },
  ],
  ["u", "close the module around the selected node", () => up()],
  ["ArrowUp", "to what the selected node reads; without one, move the picture", () => step("up")],
  ["ArrowDown", "to what reads the selected node", () => step("down")],
  ["ArrowLeft", "to the node on the left", () => step("left")],
  ["ArrowRight", "to the node on the right", () => step("right")],
  ["[", "the stage before", () => turn(-1)],
  ["]", "the next stage", () => turn(1)],
  [
    "b",
    "before or after the pass",
    () => {
      if (state.number) show({ number: state.number, side: state.side === "after" ? "before" : "after" });
    },
  ],
  ["t", "tables", () => drawer()],
  ["d", "light or dark", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark")],
  ["Escape", "end the search, then select nothing", () => (state.found ? found.clear() : select(null))],
  ["?", "these keys", () => byId("help").showModal()],
];

function zoomMiddle(factor) {
  zoom(factor, canvas.clientWidth / 2, canvas.clientHeight / 2);
}

function turn(by) {
  const number = state.number + by;
  if (number >= 0 && number < DATA.stages.length) show({ number, side: "after" });
}

function up() {
  const box = state.selected,
    view = current();
  const module = box && (box.leaf === null ? view.around.get(box.module) : view.home.get(box.leaf));
  if (module) toggle(module);
}

const SIDES = { up: [0, -1], down: [0, 1], left: [-1, 0], right: [1, 0] };

/** Move the selection along a line, or to a neighbour; without a selection, move the picture. */
function step(direction) {
  const box = state.selected,
    view = current();
  if (!box) {
    const [x, y] = SIDES[direction];
    camera.x += (x * 80) / camera.scale;
    camera.y += (y * 80) / camera.scale;
    return;
  }
  if (box.leaf !== null && (direction === "up" || direction === "down")) {
    const next =
      direction === "up"
        ? view.takes[box.leaf].map((value) => view.stage.reads[value][0])
        : view.gives[box.leaf].flatMap((value) => view.stage.reads[value].slice(1));
    if (next.length) go(next[0]);
    return;
  }
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2],
    side = SIDES[direction];
  let best = null,
    least = Infinity;
  for (const other of [...state.scene.boxes, ...state.scene.frames]) {
    const [right, down] = [other.x + other.width / 2 - x, other.y + other.height / 2 - y],
      ahead = right * side[0] + down * side[1],
      aside = Math.abs(right * side[1]) + Math.abs(down * side[0]);
    if (other === box || ahead < 8 || ahead + 2 * aside >= least) continue;
    [best, least] = [other, ahead + 2 * aside];
  }
  if (best) {
    select(best);
    reveal(canvas, best);
  }
}

function drawer() {
  const shown = byId("tables").toggleAttribute("hidden");
  byId("tables-button").setAttribute("aria-expanded", String(!shown));
  if (!shown) tables(current(), state.selected);
  if (state.selected) reveal(canvas, state.selected);
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  readColors();
  legend();
  detail(current(), state.selected);
}

function press(key) {
  const found = KEYS.find(([name]) => name === (key === "=" ? "+" : key));
  if (!found) return false;
  found[2]();
  redraw();
  return true;
}

function help() {
  const rows = KEYS.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)]);
  byId("help").append(
    make("h2", {}, "Keys"),
    make("dl", {}, ...rows),
    make("p", {}, "Drag to move, Ctrl and the wheel (or pinch) to zoom, double click to open or close a module."),
    make("form", { method: "dialog" }, make("button", {}, "Close")),
  );
}

/** What the address asks for: `#stage=3&node=conv1`, or `#conv1`. */
function follow() {
  const text = decodeURIComponent(location.hash.slice(1)),
    asked = new URLSearchParams(location.hash.slice(1));
  const number = Number(asked.get("stage") ?? state.number),
    plain = !/^(stage|side|node)=/.test(text);
  if (DATA.stages[number] && (number !== state.number || (asked.get("side") || "after") !== state.side))
    show({ number, side: asked.get("side") === "before" && number ? "before" : "after" });
  const leaf = current().byName.get(plain ? text : asked.get("node"));
  if (leaf !== undefined) go(leaf);
}

function start() {
  document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  readColors();
  openUpTo(150);
  arrange();
  stageList();
  legend();
  help();
  begin(canvas, state.scene);
  const hash = location.hash;
  select(null);
  if (hash) {
    history.replaceState(null, "", hash);
    follow();
  }
  timed("draw", () => draw(canvas, state.scene, camera, lookOf()));
}

const found = searchField({
  view: current,
  chosen: (leaf) => {
    go(leaf);
    canvas.focus();
  },
  changed: (leaves) => {
    state.found = leaves;
    redraw();
  },
});

steer(canvas, {
  moved: redraw,
  click: (x, y) => select(boxAt(state.scene, x, y)),
  doubleClick: (x, y) => {
    const box = boxAt(state.scene, x, y);
    if (box && box.leaf === null) toggle(box.module);
  },
});
steerByMap(byId("map"), canvas, () => state.mapSpot, redraw);
new ResizeObserver(redraw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) =>
  theme(event.matches ? "dark" : "light"),
);
window.addEventListener("hashchange", follow);
document.addEventListener("keydown", (event) => {
  if (
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    byId("help").open ||
    /^(INPUT|TEXTAREA)$/.test(event.target.tagName)
  )
    return;
  const own = event.target.closest("button, tr, .rows") && (event.key === "Enter" || event.key.startsWith("Arrow"));
  if (!own && press(event.key)) event.preventDefault();
});
document
  .querySelectorAll("[data-key]")
  .forEach((button) => button.addEventListener("click", () => press(button.dataset.key)));
timed("start", start);
