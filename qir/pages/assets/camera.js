"use strict";
// Moving over the graph: a camera has the page coordinates of its left upper corner, and a scale.
const camera = { x: 0, y: 0, scale: 1 };
const SMALLEST = 0.004,
  LARGEST = 3,
  LEGEND = 60;

/** Zoom by a factor; what is at (x, y) of the canvas stays there. */
function zoom(factor, x, y) {
  const scale = Math.min(LARGEST, Math.max(SMALLEST, camera.scale * factor));
  camera.x += x / camera.scale - x / scale;
  camera.y += y / camera.scale - y / scale;
  camera.scale = scale;
}

/** Show all of the scene. */
function fit(canvas, scene) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  camera.scale = Math.min(
    1.2,
    Math.max(SMALLEST, Math.min((width - 40) / scene.width, (height - 20 - LEGEND) / scene.height)),
  );
  centre(canvas, scene.width / 2, scene.height / 2 + (LEGEND - 20) / 2 / camera.scale);
}

/** Show the beginning, large enough to read. */
function begin(canvas, scene) {
  fit(canvas, scene);
  if (camera.scale >= 0.55) return;
  camera.scale = Math.min(0.8, Math.max(0.55, (canvas.clientWidth - 40) / scene.width));
  const first = scene.boxes.reduce(
    (top, box) => (box.y < top.y ? box : top),
    scene.boxes[0] || { x: 0, y: 0, width: 0 },
  );
  const fits = scene.width * camera.scale < canvas.clientWidth - 20;
  centre(canvas, fits ? scene.width / 2 : first.x + first.width / 2, 0);
  camera.y = -24 / camera.scale;
}

function centre(canvas, x, y) {
  camera.x = x - canvas.clientWidth / camera.scale / 2;
  camera.y = y - canvas.clientHeight / camera.scale / 2;
}

/** Bring a box into view: to the middle, sideways and up or down where it is out of sight. */
function reveal(canvas, box) {
  if (camera.scale < 0.35) camera.scale = 0.7;
  const [width, height] = [canvas.clientWidth / camera.scale, canvas.clientHeight / camera.scale];
  const { x, y } = camera,
    tall = Math.min(box.height, height);
  centre(canvas, box.x + box.width / 2, box.y + tall / 2);
  if (box.x >= x && box.x + Math.min(box.width, width) <= x + width) camera.x = x;
  if (box.y >= y + 10 && box.y + tall <= y + height - LEGEND / camera.scale) camera.y = y;
}

/** The box under a place of the canvas: a node before the module around it; of a module, its title. */
function boxAt(scene, x, y) {
  const [left, top] = [camera.x + x / camera.scale, camera.y + y / camera.scale];
  const over = (box, height) => left >= box.x && left <= box.x + box.width && top >= box.y && top <= box.y + height;
  const head = (frame) => Math.max(HEAD, Math.min(frame.height / 5, 22 / camera.scale));
  return (
    scene.boxes.find((box) => over(box, box.height)) ||
    scene.frames.findLast((frame) => over(frame, head(frame))) ||
    null
  );
}

/** Let mouse, touch and wheel move the camera. `click` is called with the place of a click, `moved` after each move. */
function steer(canvas, { click, doubleClick, moved }) {
  const fingers = new Map();
  let dragged = false;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    dragged = false;
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const now = [event.offsetX, event.offsetY];
    if (!dragged && Math.hypot(now[0] - last[0], now[1] - last[1]) < 4) return;
    dragged = true;
    canvas.classList.add("dragging");
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const length = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
      zoom(length(now, other) / length(last, other), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else {
      camera.x -= (now[0] - last[0]) / camera.scale;
      camera.y -= (now[1] - last[1]) / camera.scale;
    }
    fingers.set(event.pointerId, now);
    moved();
  });
  const release = (event) => {
    fingers.delete(event.pointerId);
    canvas.classList.remove("dragging");
    if (!dragged && event.type === "pointerup") click(event.offsetX, event.offsetY);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("dblclick", (event) => doubleClick(event.offsetX, event.offsetY));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const unit = event.deltaMode === 1 ? 16 : 1,
        [across, down] = [event.deltaX * unit, event.deltaY * unit];
      if (event.ctrlKey || event.metaKey) zoom(Math.exp(-down * 0.006), event.offsetX, event.offsetY);
      else {
        camera.x += (event.shiftKey && !across ? down : across) / camera.scale;
        camera.y += (event.shiftKey && !across ? 0 : down) / camera.scale;
      }
      moved();
    },
    { passive: false },
  );
}

/** Let a press on the small map move the camera there. */
function steerByMap(map, canvas, spot, moved) {
  const go = (event) => {
    const { scale, left, top } = spot();
    centre(canvas, (event.offsetX - left) / scale, (event.offsetY - top) / scale);
    moved();
  };
  map.addEventListener("pointerdown", (event) => {
    map.setPointerCapture(event.pointerId);
    go(event);
  });
  map.addEventListener("pointermove", (event) => {
    if (event.buttons) go(event);
  });
}
