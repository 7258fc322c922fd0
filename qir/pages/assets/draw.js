"use strict";
// The picture: what of a scene the camera sees, on a canvas. Small boxes lose their text, then their corners.
const KINDS = ["float", "integer", "quantizer", "move", "opaque", "input", "output"];
const SIGNS = { added: "+", removed: "−", changed: "~" };
const FONT = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';

let colors = {};

/** The colours of the style sheet, as they are now. */
function readColors() {
  const style = getComputedStyle(document.documentElement);
  const names = [
    "paper",
    "panel",
    "ink",
    "muted",
    "rule",
    "accent",
    "wire",
    "frame",
    "frame-line",
    "found",
    "added",
    "removed",
    "changed",
  ];
  for (const kind of KINDS) names.push(`${kind}-fill`, `${kind}-line`, `${kind}-text`);
  colors = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Draw `scene`. `look` says what stands out: the selected box, the found leaves (null when nothing is searched). */
function draw(canvas, scene, camera, look) {
  const ratio = window.devicePixelRatio || 1,
    context = canvas.getContext("2d");
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = colors.paper;
  context.fillRect(0, 0, width, height);
  context.setTransform(
    ratio * camera.scale,
    0,
    0,
    ratio * camera.scale,
    -ratio * camera.scale * camera.x,
    -ratio * camera.scale * camera.y,
  );
  const seen = {
    left: camera.x,
    top: camera.y,
    right: camera.x + width / camera.scale,
    bottom: camera.y + height / camera.scale,
  };
  for (const frame of scene.frames) if (touches(frame, seen)) drawFrame(context, scene, frame, camera, look);
  drawLines(context, scene, camera, look, seen);
  for (const box of scene.boxes) if (touches(box, seen)) drawBox(context, scene, box, camera, look);
}

const touches = (box, seen) =>
  box.x <= seen.right && box.x + box.width >= seen.left && box.y <= seen.bottom && box.y + box.height >= seen.top;

function drawFrame(context, scene, frame, camera, look) {
  const chosen = look.selected === frame,
    module = scene.view.modules[frame.module];
  context.fillStyle = frame.depth % 2 ? colors.paper : colors.frame;
  context.strokeStyle = chosen ? colors.accent : colors["frame-line"];
  context.lineWidth = chosen ? 3 : 1;
  outline(context, frame.x, frame.y, frame.width, frame.height, camera.scale < 0.1 ? 0 : 10);
  context.fill();
  context.stroke();
  const size = Math.min(Math.max(13, 11 / camera.scale), HEAD * 0.8);
  if (size * camera.scale < 6) return;
  context.fillStyle = chosen ? colors.accent : colors.muted;
  context.font = `600 ${size}px ${FONT}`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillText(`− ${fitted(context, module.path, frame.width - 40, true)}`, frame.x + 10, frame.y + HEAD / 2 + 1);
}

function drawLines(context, scene, camera, look, seen) {
  const simple = camera.scale < 0.3,
    related = look.related;
  const paths = [new Path2D(), new Path2D(), new Path2D()];
  for (const line of scene.lines) {
    if (
      line.y2 < seen.top ||
      line.y1 > seen.bottom ||
      Math.max(line.x1, line.x2) < seen.left ||
      Math.min(line.x1, line.x2) > seen.right
    )
      continue;
    const path = paths[related ? related(line) : 0];
    path.moveTo(line.x1, line.y1);
    if (simple || line.x1 === line.x2) path.lineTo(line.x2, line.y2);
    else {
      const bend = Math.max(10, (line.y2 - line.y1) / 2);
      path.bezierCurveTo(line.x1, line.y1 + bend, line.x2, line.y2 - bend, line.x2, line.y2);
    }
    if (!simple && line.target !== null && typeof line.target === "number") head(path, line, scene);
  }
  const styles = [
    [colors.wire, 1.3],
    [colors["float-line"], 2.6],
    [colors.accent, 2.6],
  ];
  styles.forEach(([color, width], index) => {
    context.strokeStyle = color;
    context.lineWidth = Math.max(width, (index ? 1.6 : 0.5) / camera.scale);
    context.stroke(paths[index]);
  });
}

function head(path, line, scene) {
  if (line.target < 0 && scene.boxOfModule.get(-1 - line.target)?.height > HEIGHT) return;
  path.moveTo(line.x2 - 4, line.y2 - 6);
  path.lineTo(line.x2, line.y2);
  path.lineTo(line.x2 + 4, line.y2 - 6);
}

function outline(context, x, y, width, height, radius) {
  context.beginPath();
  if (radius) context.roundRect(x, y, width, height, radius);
  else context.rect(x, y, width, height);
}

/** The kind, mark and texts of a box; a module that is one layer with its quantizers looks like that layer. */
function face(view, box) {
  if (box.leaf !== null) {
    const record = view.leaves[box.leaf];
    return {
      kind: record.kind,
      mark: view.marks[box.leaf],
      title: record.op.split(".").pop(),
      under: record.path || record.name,
      right: subtitle(record),
    };
  }
  const module = view.modules[box.module],
    main = module.main === null ? null : view.leaves[module.main];
  const mark = moduleMark(view, box.module);
  if (main)
    return {
      kind: main.kind,
      mark,
      title: main.op.split(".").pop(),
      under: module.path,
      right: `+ ${module.size - 1}`,
      stacked: true,
    };
  return { kind: "move", mark, title: module.path, under: `${module.size} nodes`, right: "", stacked: true };
}

function subtitle(record) {
  const encoding = encodingOf(record);
  if (encoding) return encoding.dtype;
  return record.gives.length ? record.gives[0][1] : "";
}

/** The mark of all leaves in a module: "changed" where they differ. */
function moduleMark(view, index) {
  view.moduleMarks ||= new Map();
  if (!view.moduleMarks.has(index)) {
    const found = new Set(
      view.modules[index].items
        .filter((item) => typeof item === "number")
        .map((item) => (item < 0 ? moduleMark(view, -1 - item) : view.marks[item])),
    );
    view.moduleMarks.set(index, found.size > 1 ? "changed" : [...found][0]);
  }
  return view.moduleMarks.get(index);
}

function drawBox(context, scene, box, camera, look) {
  const { kind, mark, title, under, right, stacked } = (box.face ||= face(scene.view, box));
  const small = camera.scale < 0.25,
    radius = small ? 0 : kind === "quantizer" || kind === "input" || kind === "output" ? 23 : 7;
  const found = look.found && (box.leaf === null ? look.foundModules.has(box.module) : look.found.has(box.leaf));
  context.globalAlpha = look.found && !found ? 0.35 : 1;
  if (stacked && !small) {
    context.fillStyle = colors[`${kind}-fill`];
    context.strokeStyle = colors[`${kind}-line`];
    context.lineWidth = 1;
    outline(context, box.x + 4, box.y + 4, box.width, box.height, radius);
    context.fill();
    context.stroke();
  }
  context.fillStyle = colors[`${kind}-fill`];
  context.strokeStyle = mark ? colors[mark] : colors[`${kind}-line`];
  context.lineWidth = mark ? Math.max(3, 1.2 / camera.scale) : Math.max(1.4, small ? 0.8 / camera.scale : 0);
  context.setLineDash(kind === "opaque" ? [5, 3] : []);
  outline(context, box.x, box.y, box.width, box.height, radius);
  context.fill();
  context.stroke();
  context.setLineDash([]);
  if (found) ring(context, box, colors.found, 4, 3 / camera.scale);
  if (look.selected === box) ring(context, box, colors.accent, 4, 3 / camera.scale);
  if (camera.scale > 0.3) drawText(context, box, kind, mark, title, under, right);
  context.globalAlpha = 1;
}

function ring(context, box, color, space, width) {
  context.strokeStyle = color;
  context.lineWidth = Math.max(3, width);
  outline(context, box.x - space, box.y - space, box.width + 2 * space, box.height + 2 * space, 10);
  context.stroke();
}

/** The operator and, in the room that it leaves, its type; below them the path. */
function drawText(context, box, kind, mark, title, under, right) {
  const inner = kind === "quantizer" || kind === "input" || kind === "output" ? 18 : 11,
    badge = mark ? 16 : 0;
  const space = box.width - 2 * inner - badge;
  context.fillStyle = colors[`${kind}-text`];
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.font = `600 14px ${FONT}`;
  const shown = fitted(context, title, space),
    rest = space - context.measureText(shown).width - 8;
  context.fillText(shown, box.x + inner, box.y + 15.5);
  context.font = `12px ${FONT}`;
  context.globalAlpha *= 0.85;
  context.fillText(fitted(context, under, box.width - 2 * inner, true), box.x + inner, box.y + 33);
  context.textAlign = "right";
  if (rest > 30) context.fillText(fitted(context, right, rest), box.x + box.width - inner - badge, box.y + 15.5);
  context.globalAlpha /= 0.85;
  if (mark) {
    context.fillStyle = colors[mark];
    outline(context, box.x + box.width - 21, box.y + 5, 16, 16, 8);
    context.fill();
    context.fillStyle = colors.panel;
    context.font = `700 14px ${FONT}`;
    context.textAlign = "center";
    context.fillText(SIGNS[mark], box.x + box.width - 13, box.y + 13.5);
  }
}

const fits = new Map();

/** The text, cut where it is wider than `width`: at its end, or at its beginning where that says less. */
function fitted(context, text, width, end = false) {
  const shown = text.length > 200 ? (end ? text.slice(-200) : text.slice(0, 200)) : text;
  const key = `${context.font}|${Math.round(width)}|${end}|${shown}`;
  if (!fits.has(key)) {
    if (fits.size > 50000) fits.clear();
    let cut = shown,
      length = shown.length;
    while (length > 1 && context.measureText(cut).width > width) {
      length = Math.min(length - 1, Math.floor((length * width) / context.measureText(cut).width) + 1);
      cut = end ? `…${shown.slice(-length)}` : `${shown.slice(0, length)}…`;
    }
    fits.set(key, cut);
  }
  return fits.get(key);
}

/** The whole scene, small, with the part that the camera sees. */
function drawMap(canvas, scene, camera, view) {
  const ratio = window.devicePixelRatio || 1,
    scale = Math.min(0.14, 170 / scene.width, 190 / scene.height);
  const width = Math.max(24, scene.width * scale + 12),
    height = scene.height * scale + 12,
    context = canvas.getContext("2d");
  [canvas.style.width, canvas.style.height, canvas.width, canvas.height] = [
    `${width}px`,
    `${height}px`,
    width * ratio,
    height * ratio,
  ];
  const left = (width - scene.width * scale) / 2;
  context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * left, ratio * 6);
  for (const box of scene.boxes) {
    const { kind, mark } = (box.face ||= face(scene.view, box));
    context.fillStyle = mark ? colors[mark] : colors[`${kind}-line`];
    context.fillRect(box.x, box.y, box.width, Math.max(box.height, 0.7 / scale));
  }
  context.strokeStyle = colors.accent;
  context.lineWidth = 1.5 / scale;
  context.strokeRect(camera.x, camera.y, view.width / camera.scale, view.height / camera.scale);
  return { scale, left, top: 6 };
}
