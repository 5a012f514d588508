// The mask: a list of operations in the photo's own pixels, drawn at whatever scale is needed.
// The screen shows them small, the request gets them at the photo's full size; the screen never sets the resolution.

const LARGEST_STEPS = 400; // operations that are kept for undoing

export class Mask {
  constructor() {
    this.done = [];
    this.undone = [];
  }

  add(operation) {
    this.done.push(operation);
    this.undone = [];
    if (this.done.length > LARGEST_STEPS) this.done.shift();
    return operation;
  }

  undo() {
    const last = this.done.pop();
    if (last) this.undone.push(last);
    return Boolean(last);
  }

  redo() {
    const last = this.undone.pop();
    if (last) this.done.push(last);
    return Boolean(last);
  }

  reset() {
    this.done = [];
    this.undone = [];
  }

  // Draw all operations in opaque black on nothing; the context's transform leads from the photo's pixels to its own.
  draw(context, width, height) {
    for (const operation of this.done) drawOne(context, operation, width, height);
  }

  // The mask at full size, white = repaint, widened by `grow` pixels.
  async picture(width, height, grow = 0) {
    const layer = new OffscreenCanvas(width, height);
    const context = layer.getContext("2d", { willReadFrequently: true });
    this.draw(context, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    let count = 0;
    for (let i = 0; i < pixels.data.length; i += 4) {
      const white = pixels.data[i + 3] >= 128;
      count += white;
      pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = white ? 255 : 0;
      pixels.data[i + 3] = 255;
    }
    context.putImageData(pixels, 0, 0);
    return { blob: await layer.convertToBlob({ type: "image/png" }), count, grow };
  }
}

export function drawOne(context, operation, width, height, from = 0) {
  context.save();
  context.globalCompositeOperation = operation.erase ? "destination-out" : "source-over";
  context.fillStyle = context.strokeStyle = "#000";
  switch (operation.kind) {
    case "stroke":
      drawStroke(context, operation, from);
      break;
    case "rectangle":
      context.fillRect(...operation.box);
      break;
    case "lasso":
      context.beginPath();
      for (const [x, y] of operation.points) context.lineTo(x, y);
      context.fill("nonzero");
      break;
    case "picture":
      context.drawImage(operation.bitmap, 0, 0, width, height);
      break;
    case "invert":
      context.globalCompositeOperation = "xor";
      context.fillRect(0, 0, width, height);
      break;
    case "clear":
      context.clearRect(0, 0, width, height);
      break;
  }
  context.restore();
}

// A stroke from its point number `from` on: what was drawn before need not be drawn again.
function drawStroke(context, { points, size }, from) {
  const first = Math.max(0, from - 1);
  context.beginPath(); // a dot first, because a line of no length leaves nothing
  context.arc(...points[first], size / 2, 0, 2 * Math.PI);
  context.fill();
  context.lineWidth = size;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  for (const [x, y] of points.slice(first)) context.lineTo(x, y);
  context.stroke();
}

// A mask file, or a photo's transparency, as a picture that is opaque where the photo is to be repainted.
export async function pictureOf(source, reading) {
  const bitmap = await createImageBitmap(source);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const data = pixels.data;
  const layered = reading === "mask" && hasTransparency(data);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const light = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
    const hole = reading === "transparency" ? data[i + 3] < 128 : layered ? data[i + 3] >= 128 : light >= 128;
    data[i + 3] = hole ? 255 : 0;
    count += hole;
  }
  context.putImageData(pixels, 0, 0);
  return { bitmap: await createImageBitmap(canvas), count, width: bitmap.width, height: bitmap.height };
}

function hasTransparency(data) {
  for (let i = 3; i < data.length; i += 4) if (data[i] < 255) return true;
  return false;
}
