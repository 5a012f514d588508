// The stage: the photo with its mask over it, zoomed and moved, and what the pointer draws.
// Two canvases lie on each other. The photo's is drawn when it moves; the mask's gets each new piece of a stroke alone.

import { drawOne } from "./mask.js";

const HOLE = "rgb(255 204 0 / 60%)";
const MOST_ZOOM = 32;

export class Stage {
  constructor(root, mask, changed) {
    this.root = root;
    this.mask = mask;
    this.changed = changed;
    this.photoCanvas = root.querySelector("#photo");
    this.layerCanvas = root.querySelector("#layer");
    this.tool = "brush";
    this.size = 48;
    this.frame = null; // { width, height, left, top }: the photo with what it is extended by
    this.bitmap = null; // the photo
    this.result = null; // a result shown over it
    this.split = 0; // share from the left that shows the photo beneath it
    this.previews = new Map(); // of holes as far as they are painted, by their places
    this.view = { scale: 1, x: 0, y: 0 };
    this.pointers = new Map();
    this.stroke = null;
    this.cursor = null;
    this.layer = new OffscreenCanvas(1, 1); // the mask as the screen shows it, opaque
    this.listen();
    new ResizeObserver(() => this.resize()).observe(root);
  }

  show(bitmap, frame) {
    const fresh = !this.frame || this.frame.width !== frame.width || this.frame.height !== frame.height;
    this.bitmap = bitmap;
    this.frame = frame;
    this.result = null;
    if (fresh) this.fit();
    else this.redraw();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [this.root.clientWidth, this.root.clientHeight].map((side) => Math.max(1, Math.round(side * ratio)));
    for (const canvas of [this.photoCanvas, this.layerCanvas, this.layer]) {
      canvas.width = width;
      canvas.height = height;
    }
    this.ratio = ratio;
    if (this.frame && !this.moved) this.fit();
    else this.redraw();
  }

  fit() {
    const { width, height } = this.layerCanvas;
    const scale = Math.min((0.94 * width) / this.frame.width, (0.94 * height) / this.frame.height, MOST_ZOOM);
    this.view = { scale, x: (width - scale * this.frame.width) / 2, y: (height - scale * this.frame.height) / 2 };
    this.moved = false;
    this.redraw();
  }

  zoom(factor, x, y) {
    const scale = Math.min(MOST_ZOOM, Math.max(0.02, this.view.scale * factor));
    const real = scale / this.view.scale;
    this.view = { scale, x: x - real * (x - this.view.x), y: y - real * (y - this.view.y) };
    this.moved = true;
    this.redraw();
  }

  place(context) {
    const { scale, x, y } = this.view;
    context.setTransform(scale, 0, 0, scale, x, y);
  }

  redraw() {
    if (!this.frame) return;
    cancelAnimationFrame(this.waiting);
    this.waiting = requestAnimationFrame(() => {
      this.drawPhoto();
      this.drawMask();
    });
  }

  drawPhoto() {
    const context = this.photoCanvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.photoCanvas.width, this.photoCanvas.height);
    if (!this.frame) return;
    this.place(context);
    context.imageSmoothingEnabled = this.view.scale < 4;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.bitmap, this.frame.left, this.frame.top);
    if (this.peeking) return;
    for (const { box, image } of this.previews.values()) context.drawImage(image, ...box);
    if (!this.result) return;
    const { width, height } = this.frame;
    const edge = width * this.split;
    context.save();
    context.beginPath();
    context.rect(edge, 0, width - edge, height);
    context.clip();
    context.drawImage(this.result, 0, 0);
    context.restore();
    if (this.split <= 0 || this.split >= 1) return;
    const line = (2 * devicePixelRatio) / this.view.scale; // of two pixels of the screen, at any zoom
    context.fillStyle = "#0006";
    context.fillRect(edge - line, 0, 2 * line, height);
    context.fillStyle = "#fff";
    context.fillRect(edge - line / 2, 0, line, height);
  }

  drawMask() {
    const context = this.layer.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.layer.width, this.layer.height);
    this.place(context);
    context.beginPath();
    context.rect(0, 0, this.frame.width, this.frame.height);
    context.save();
    context.clip();
    this.mask.draw(context, this.frame.width, this.frame.height);
    context.restore();
    this.tint();
  }

  // Show the mask in its colour, and the pointer's brush; within a part of the screen (left, top, width, height), if given.
  tint(part = [0, 0, this.layerCanvas.width, this.layerCanvas.height]) {
    const context = this.layerCanvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.save();
    context.beginPath();
    context.rect(...part);
    context.clip();
    context.clearRect(...part);
    if (this.frame) this.drawLayer(context, part);
    context.restore();
  }

  drawLayer(context, part) {
    if (!this.result && !this.peeking && !this.previews.size) {
      context.drawImage(this.layer, 0, 0);
      context.globalCompositeOperation = "source-in";
      context.fillStyle = HOLE;
      context.fillRect(...part);
      context.globalCompositeOperation = "source-over";
    }
    this.place(context);
    context.lineWidth = 1.5 / this.view.scale;
    if (this.stroke && this.stroke.kind !== "stroke") this.outline(context, this.stroke);
    if (this.cursor) this.drawCursor(context);
  }

  // The part of the screen around some of the photo's points, with room for the brush: all that a piece of a stroke changes.
  around(points) {
    const { scale, x, y } = this.view;
    const room = 10 + (scale * this.size) / 2;
    const xs = points.map((point) => x + scale * point[0]);
    const ys = points.map((point) => y + scale * point[1]);
    const [left, top] = [Math.floor(Math.min(...xs) - room), Math.floor(Math.min(...ys) - room)];
    return [left, top, Math.ceil(Math.max(...xs) + room) - left, Math.ceil(Math.max(...ys) + room) - top];
  }

  outline(context, { kind, box, points }) {
    context.setLineDash([6 / this.view.scale, 4 / this.view.scale]);
    context.strokeStyle = "#000";
    context.beginPath();
    if (kind === "rectangle") context.rect(...box);
    else for (const [x, y] of points) context.lineTo(x, y);
    context.stroke();
    context.setLineDash([]);
  }

  drawCursor(context) {
    const round = this.tool === "brush" || this.tool === "eraser";
    const radius = round ? this.size / 2 : 5 / this.view.scale;
    for (const [colour, more] of [["#000", 0], ["#fff", 1.5 / this.view.scale]]) {
      context.strokeStyle = colour;
      context.beginPath();
      context.arc(...this.cursor, Math.max(0.5, radius + more), 0, 2 * Math.PI);
      context.stroke();
    }
  }

  position(event) {
    const box = this.layerCanvas.getBoundingClientRect();
    const x = (event.clientX - box.left) * this.ratio;
    const y = (event.clientY - box.top) * this.ratio;
    return { screen: [x, y], photo: [(x - this.view.x) / this.view.scale, (y - this.view.y) / this.view.scale] };
  }

  listen() {
    const layer = this.layerCanvas;
    layer.addEventListener("contextmenu", (event) => event.preventDefault());
    layer.addEventListener("pointerdown", (event) => this.down(event));
    layer.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) layer.addEventListener(name, (event) => this.up(event));
    layer.addEventListener("pointerleave", () => {
      this.cursor = null;
      this.tint();
    });
    layer.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  wheel(event) {
    if (!this.frame) return;
    event.preventDefault();
    if (event.ctrlKey || event.altKey) {
      this.setSize(this.size * (event.deltaY < 0 ? 1.1 : 1 / 1.1));
      this.tint();
    } else {
      this.zoom(Math.exp(-event.deltaY / 400), ...this.position(event).screen);
    }
  }

  setSize(size) {
    this.size = Math.min(2000, Math.max(1, size));
    this.changed("size");
  }

  down(event) {
    if (!this.frame || this.busy) return;
    const { screen, photo } = this.position(event);
    this.layerCanvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, screen);
    if (this.pointers.size === 2) return this.abandon(); // two fingers move and zoom
    if (this.space || event.button === 1) {
      this.panning = true;
      return;
    }
    const erase = this.tool === "eraser" || event.button === 2;
    if (this.result) this.changed("drawing"); // drawing over a result goes back to the mask
    const kind = { rectangle: "rectangle", lasso: "lasso" }[this.tool] ?? "stroke";
    this.stroke = { kind, erase, size: this.size, points: [photo], box: [...photo, 0, 0] };
    if (kind === "stroke") this.piece(0);
  }

  move(event) {
    if (!this.frame) return;
    const { screen, photo } = this.position(event);
    const cursors = this.cursor ? [this.cursor, photo] : [photo]; // where the brush was shown, and where it is now
    this.cursor = photo;
    if (this.pointers.size === 2 && this.pointers.has(event.pointerId)) return this.pinch(event.pointerId, screen);
    const before = this.pointers.get(event.pointerId);
    if (this.panning && before) {
      this.view.x += screen[0] - before[0];
      this.view.y += screen[1] - before[1];
      this.moved = true;
      this.pointers.set(event.pointerId, screen);
      return this.redraw();
    }
    if (!this.stroke) return this.tint(this.around(cursors));
    const from = this.stroke.points.length;
    for (const one of event.getCoalescedEvents?.() ?? [event]) this.stroke.points.push(this.position(one).photo);
    if (this.stroke.points.length === from) this.stroke.points.push(photo);
    if (this.stroke.kind === "stroke") return this.piece(from, cursors);
    const [x, y] = this.stroke.points[0];
    this.stroke.box = [Math.min(x, photo[0]), Math.min(y, photo[1]), Math.abs(photo[0] - x), Math.abs(photo[1] - y)];
    this.tint();
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    this.panning = false;
    if (!this.stroke) return;
    const stroke = this.stroke;
    this.stroke = null;
    this.mask.add(stroke);
    if (stroke.kind !== "stroke") this.drawMask();
    this.changed("mask");
  }

  abandon() {
    this.stroke = null;
    this.drawMask();
  }

  pinch(id, screen) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, place]) => place);
    const before = this.pointers.get(id);
    const spread = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    this.view.x += (screen[0] - before[0]) / 2;
    this.view.y += (screen[1] - before[1]) / 2;
    this.pointers.set(id, screen);
    this.zoom(spread(screen, other) / Math.max(1, spread(before, other)), (screen[0] + other[0]) / 2, (screen[1] + other[1]) / 2);
  }

  // Draw only what a stroke has gained since its point number `from`.
  piece(from, cursors = []) {
    const context = this.layer.getContext("2d");
    context.save();
    this.place(context);
    context.beginPath();
    context.rect(0, 0, this.frame.width, this.frame.height);
    context.clip();
    drawOne(context, this.stroke, this.frame.width, this.frame.height, from);
    context.restore();
    this.tint(this.around([...this.stroke.points.slice(Math.max(0, from - 1)), ...cursors]));
  }
}
