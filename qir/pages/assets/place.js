"use strict";
// Where everything stands when some modules are open. Each module has its own drawing, made with the modules in it closed;
// here the open ones get room: rows grow in height, and what stands right of a wider box moves right.
const WIDTH = DATA.box,
  HEIGHT = 46,
  ROW_GAP = 34,
  PAD = 18,
  HEAD = 30,
  PORT_GAP = 16;

/** All boxes, frames and lines of a view. `open` holds the paths of open modules. */
function place(view, open) {
  const inner = new Map();
  const isOpen = (index) => index === 0 || open.has(view.modules[index].path);
  const root = arranged(view, 0, isOpen, inner);
  const scene = { boxes: [], frames: [], lines: [], width: root.width, height: root.height, view };
  lay(view, 0, 0, 0, 0, inner, scene);
  scene.boxOfLeaf = new Map(scene.boxes.filter((box) => box.leaf !== null).map((box) => [box.leaf, box]));
  scene.boxOfModule = new Map(
    [...scene.frames, ...scene.boxes].filter((box) => box.leaf === null).map((box) => [box.module, box]),
  );
  return scene;
}

/** The inside of an open module: how far each item reaches `before` and `after` its place, and where that is. The `anchor`
    is what stands below the line to the module: where its first value enters. Modules in it are arranged first. */
function arranged(view, index, isOpen, inner) {
  const module = view.modules[index];
  const before = module.x.map(() => DATA.bend / 2),
    after = [...before],
    height = module.x.map(() => 0);
  module.items.forEach((item, position) => {
    if (typeof item === "string") return;
    before[position] = after[position] = WIDTH / 2;
    height[position] = HEIGHT;
    if (item < 0 && isOpen(-1 - item)) {
      const inside = arranged(view, -1 - item, isOpen, inner);
      before[position] = Math.max(WIDTH / 2, inside.anchor + PAD);
      after[position] = Math.max(WIDTH / 2, inside.width - inside.anchor + PAD);
      height[position] = inside.height + HEAD + PAD;
    }
  });
  const x = spread(module, before, after);
  let left = x.length ? Infinity : 0,
    right = -left;
  x.forEach((middle, item) => {
    left = Math.min(left, middle - before[item]);
    right = Math.max(right, middle + after[item]);
  });
  const made = {
    x: x.map((middle) => middle - left),
    width: right - left,
    tops: [],
    heights: [],
    before,
    after,
    height: 0,
    each: height,
  };
  const first = module.items.findIndex((item) => typeof item === "string");
  made.anchor = first < 0 ? made.width / 2 : made.x[first];
  made.height = stack(module, height, made);
  inner.set(index, made);
  return made;
}

/** The places: as drawn, then from left to right moved as little as keeps the gaps between the items of each row. */
function spread(module, before, after) {
  const x = [...module.x],
    leftOf = new Map();
  for (const row of module.rows) row.forEach((item, position) => leftOf.set(item, position ? row[position - 1] : null));
  const order = [...module.x.keys()].sort((a, b) => module.x[a] - module.x[b]);
  let moved = 0;
  for (let first = 0, last = 0; first < order.length; first = last) {
    while (last < order.length && module.x[order[last]] === module.x[order[first]]) last += 1;
    const same = order.slice(first, last);
    for (const item of same) {
      const left = leftOf.get(item);
      if (left !== null) moved = Math.max(moved, x[left] + after[left] + before[item] + DATA.gap - module.x[item]);
    }
    for (const item of same) x[item] = module.x[item] + moved;
  }
  return x;
}

/** The rows one below the other, those of ports closer; the height of all. */
function stack(module, height, made) {
  made.heights = module.rows.map((row) => row.reduce((most, item) => Math.max(most, height[item]), 0));
  let bottom = 0;
  made.heights.forEach((tall, row) => {
    const gap = row === 0 ? 0 : tall && made.heights[row - 1] ? ROW_GAP : PORT_GAP;
    made.tops.push(bottom + gap);
    bottom += gap + tall;
  });
  return bottom;
}

/** Put the items of an open module where they stand on the page. */
function lay(view, index, left, top, depth, inner, scene) {
  const module = view.modules[index],
    made = inner.get(index),
    rowOf = new Map();
  module.rows.forEach((row, number) => row.forEach((item) => rowOf.set(item, number)));
  const at = (item) => {
    const row = rowOf.get(item),
      x = left + made.x[item],
      height = made.each[item],
      rowTop = top + made.tops[row];
    return {
      x,
      left: x - made.before[item],
      right: x + made.after[item],
      top: rowTop + (made.heights[row] - height) / 2,
      height,
      row,
      rowTop,
      rowBottom: rowTop + made.heights[row],
    };
  };
  module.items.forEach((item, position) => {
    if (typeof item === "string") return;
    const spot = at(position),
      number = item < 0 ? -1 - item : null;
    const box = {
      x: spot.left,
      y: spot.top,
      width: spot.right - spot.left,
      height: spot.height,
      leaf: item < 0 ? null : item,
      module: number,
      depth,
    };
    if (number !== null && inner.has(number)) {
      scene.frames.push(box);
      const inside = inner.get(number);
      lay(view, number, spot.x - inside.anchor, spot.top + HEAD, depth + 1, inner, scene);
    } else scene.boxes.push(box);
  });
  for (const net of module.nets) layNet(module, index, net, at, inner, view, scene);
}

/** The lines of one value inside one module: the trunk past the rows, and a branch to each reader. */
function layNet(module, index, [value, source, targets, trunk], at, inner, view, scene) {
  const ends = [at(source), ...trunk.map(at)],
    start = end(module, source, value, "o", at, inner, view);
  const from = (step) => (step ? [ends[step].x, ends[step].rowBottom] : [start.x, start.y]);
  const add = (x1, y1, x2, y2, step, target) =>
    scene.lines.push({ x1, y1, x2, y2, value, step, target, module: index });
  if (start.inside !== start.y) add(start.x, start.inside, start.x, start.y, -1, null);
  for (let step = 1; step < ends.length; step += 1) {
    add(...from(step - 1), ends[step].x, ends[step].rowTop, step, null);
    if (ends[step].rowBottom > ends[step].rowTop)
      add(ends[step].x, ends[step].rowTop, ends[step].x, ends[step].rowBottom, step, null);
  }
  for (const target of targets) {
    const spot = at(target),
      step = spot.row - ends[0].row - 1;
    const { x, y, inside } = end(module, target, value, "i", at, inner, view);
    add(...from(step), x, y, step, module.items[target]);
    if (inside !== y) add(x, y, x, inside, step, module.items[target]);
  }
}

/** Where a line meets the border of an item, and how far `inside` it goes on: to where an open module takes it over. */
function end(module, item, value, side, at, inner, view) {
  const spot = at(item),
    y = side === "i" ? spot.top : spot.top + spot.height,
    code = module.items[item];
  const number = typeof code === "number" && code < 0 ? -1 - code : null;
  if (number === null || !inner.has(number)) return { x: spot.x, y, inside: y };
  const inside = inner.get(number),
    port = view.modules[number].items.indexOf(`${side}${value}`);
  return { x: spot.x - inside.anchor + inside.x[port], y, inside: side === "i" ? y + HEAD : y - PAD };
}
