"use strict";
// What the page shows: the stages of a graph, read once. Text of the model only ever becomes text of an element.
const DATA = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);

/** A new element: properties, then children, strings among them as text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A time in the browser's own performance log, under `qir:` and a name. */
function timed(name, work) {
  const start = performance.now();
  const result = work();
  performance.measure(`qir:${name}`, { start, end: performance.now() });
  return result;
}

const views = new Map();

/** A stage as it is drawn: `side` is "after" its pass, or "before" it, which is the stage before with other marks. */
function viewOf(number, side = "after") {
  const key = `${number} ${side}`;
  if (!views.has(key)) views.set(key, newView(number, side));
  return views.get(key);
}

function newView(number, side) {
  const stage = DATA.stages[side === "before" ? number - 1 : number];
  const other = side === "before" ? DATA.stages[number] : DATA.stages[number - 1];
  const leaves = stage.leaves.map((record) => DATA.records[record]);
  const modules = DATA.drawings[stage.drawing];
  const leafOf = new Map(stage.same.map((same, leaf) => [same, leaf]));
  const view = { number, side, stage, leaves, modules, leafOf, ...nesting(modules), ...readings(stage) };
  view.marks = marksOf(stage, other, side);
  view.changed = Object.fromEntries(
    Object.entries(DATA.stages[number].changed).map(([leaf, parts]) => [
      leafOf.get(DATA.stages[number].same[leaf]),
      parts,
    ]),
  );
  for (const leaf of Object.keys(view.changed)) view.marks[leaf] = "changed";
  view.byName = new Map(leaves.flatMap((record, leaf) => record.gives.map(([name]) => [name, leaf])));
  return view;
}

/** For each leaf, whether the pass added or removed it. */
function marksOf(stage, other, side) {
  if (!other) return stage.same.map(() => "");
  const there = new Set(other.same);
  return stage.same.map((same) => (there.has(same) ? "" : side === "before" ? "removed" : "added"));
}

/** The module that each leaf lies in, and the one around each module. */
function nesting(modules) {
  const home = new Map(),
    around = new Map([[0, null]]);
  modules.forEach((module, index) => {
    for (const item of module.items) {
      if (typeof item === "number" && item >= 0) home.set(item, index);
      else if (typeof item === "number") around.set(-1 - item, index);
    }
  });
  return { home, around };
}

/** What each leaf reads and who reads it, as values by number. */
function readings(stage) {
  const gives = stage.leaves.map(() => []),
    takes = stage.leaves.map(() => []);
  stage.reads.forEach(([source, ...readers], value) => {
    gives[source].push(value);
    readers.forEach((reader) => takes[reader].push(value));
  });
  return { gives, takes };
}

/** The modules around a leaf, the innermost first. */
function modulesAround(view, leaf) {
  const found = [];
  for (let module = view.home.get(leaf); module; module = view.around.get(module)) found.push(module);
  return found;
}

/** How many leaves a pass added, removed and changed. */
function counts(number) {
  const after = viewOf(number),
    before = number ? viewOf(number, "before") : null;
  const count = (view, mark) => (view ? view.marks.filter((found) => found === mark).length : 0);
  return { added: count(after, "added"), removed: count(before, "removed"), changed: count(after, "changed") };
}

const encodingOf = (record) => (record.encoding === undefined ? null : DATA.encodings[record.encoding]);

/** What data showed of a leaf. */
const numbersOf = (view, leaf) => DATA.numbers[view.stage.same[leaf]] || {};

/** The first place in the user's code. */
function lineOf(record) {
  const line = record.lines.length ? DATA.lines[record.lines[0]] : null;
  return line && line.file ? `${line.file}:${line.line}` : "";
}

/** A number for people. */
function short(number, digits = 4) {
  if (number === null || number === undefined) return "";
  if (Number.isInteger(number)) return number.toLocaleString("en");
  return Number(number.toPrecision(digits)).toString();
}
