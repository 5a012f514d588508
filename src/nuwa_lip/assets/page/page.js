// The page: photo in, strokes, request, results, and on from there.

import { ask, cancel, fetchResult, models, paint } from "./api.js";
import { Mask, pictureOf } from "./mask.js";
import { Stage } from "./stage.js";

const $ = (id) => document.getElementById(id);
const mask = new Mask();
const stage = new Stage($("stage"), mask, changed);
const state = { file: null, name: "photo", extend: [0, 0, 0, 0], results: [], chosen: null, job: null, models: [] };

function changed(what) {
  if (what === "size") $("size").value = stage.size;
  if (what === "drawing") choose(null);
  if (what === "mask") choose(null);
  refresh();
}

function refresh() {
  $("undo").disabled = mask.done.length === 0;
  $("redo").disabled = mask.undone.length === 0;
  $("drop").hidden = Boolean(state.file);
  $("another").hidden = !state.file;
  const working = Boolean(state.job);
  for (const id of ["run", "erase", "extend-button"]) $(id).disabled = working || !state.file;
  stage.busy = working;
  $("work").hidden = !working;
  $("chosen").hidden = $("compare").hidden = state.chosen === null;
}

function say(text) {
  $("message").textContent = text ?? "";
}

// Run what may fail, and show why it did.
async function guarded(action) {
  say();
  try {
    await action();
  } catch (error) {
    say(error.message || String(error));
  } finally {
    refresh();
  }
}

async function open(file, name = "photo") {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${name} is not a picture that this browser can show: give PNG, JPEG or WebP.`);
  }
  Object.assign(state, { file, name: name.replace(/\.[^.]*$/, ""), extend: [0, 0, 0, 0], bitmap });
  mask.reset();
  forget();
  stage.frame = null;
  frame();
  $("badge").textContent = "";
  const transparent = await pictureOf(bitmap, "transparency");
  if (transparent.count) mask.add({ kind: "picture", bitmap: transparent.bitmap });
  stage.redraw();
  refresh();
}

function frame() {
  const [left, top, right, bottom] = state.extend;
  const { width, height } = state.bitmap;
  stage.show(state.bitmap, { left, top, width: width + left + right, height: height + top + bottom });
}

function forget() {
  for (const result of state.results) URL.revokeObjectURL(result.url);
  state.results = [];
  $("results").replaceChildren();
  choose(null);
}

// Extend the photo: what is new belongs to the hole.
function extend(pixels, side) {
  const all = side === "all sides";
  const [left, top, right, bottom] = ["left", "top", "right", "bottom"].map((name) => (all || name === side ? pixels : 0));
  const before = { ...stage.frame };
  for (const operation of mask.done) shift(operation, left, top);
  state.extend = state.extend.map((old, i) => old + [left, top, right, bottom][i]);
  const { width, height } = { width: before.width + left + right, height: before.height + top + bottom };
  for (const box of [
    [0, 0, width, top], [0, height - bottom, width, bottom], [0, 0, left, height], [width - right, 0, right, height],
  ]) if (box[2] && box[3]) mask.add({ kind: "rectangle", box });
  forget();
  frame();
}

function shift(operation, left, top) {
  operation.points = operation.points?.map(([x, y]) => [x + left, y + top]);
  if (operation.box) operation.box = [operation.box[0] + left, operation.box[1] + top, ...operation.box.slice(2)];
}

// Hide the settings that mean nothing to the model, as far as that is known: a model is loaded when it first paints.
function offer() {
  const options = state.models.find(({ id }) => id === $("model").value)?.options;
  for (const label of document.querySelectorAll("[data-option]")) label.hidden = Boolean(options) && !options.includes(label.dataset.option);
}

function settings() {
  const labels = [...document.querySelectorAll("[data-option]")].filter((label) => !label.hidden);
  return Object.fromEntries(labels.map((label) => [label.dataset.option, label.control.value]));
}

async function run(prompt) {
  const { width, height } = stage.frame;
  const picture = await mask.picture(width, height);
  if (!picture.count) throw new Error("Draw over what is to be repainted first.");
  const token = $("token").value;
  state.job = { stop: new AbortController() };
  forget();
  refresh();
  try {
    const job = await paint(
      {
        image: state.file,
        mask: picture.blob,
        prompt,
        model: $("model").value,
        num_images_per_prompt: $("count").value,
        seed: $("seed").value,
        ...settings(),
        grow: $("grow").value,
        extend: state.extend.some(Boolean) ? state.extend.join(",") : "",
      },
      { token, heard: hear, previews: $("previews").checked, signal: state.job.stop.signal },
    );
    if (job.state !== "done") return;
    for (const candidate of job.images) {
      const blob = await fetchResult(candidate, token);
      state.results.push({ ...candidate, blob, url: URL.createObjectURL(blob), bitmap: await createImageBitmap(blob) });
    }
    const known = job.known_pixels.toLocaleString("en");
    $("badge").textContent = `outside the hole: ${job.known_changed} of ${known} pixels changed`;
    say(job.notes.join(". "));
    list();
    choose(0);
    await listModels(); // it is loaded now
  } finally {
    state.job = null;
    stage.previews.clear();
    stage.redraw();
  }
}

// Lay a preview over its place; those of other windows stay.
async function lay({ box, url }) {
  const image = Object.assign(new Image(), { src: url });
  await image.decode();
  if (!state.job) return; // over meanwhile
  stage.previews.set(box.join(), { box, image });
  stage.redraw();
}

function hear(job) {
  if (job.preview) lay(job.preview).catch(() => {}); // a picture less is no error
  if (state.job && !state.job.id) {
    state.job.id = job.id;
    if (state.job.cancelled) guarded(stop); // asked for before the server had given it a name
  }
  const { progress, seconds_left: left, state: now, ahead } = job;
  if (now === "waiting") $("progress").removeAttribute("value");
  else $("progress").value = progress;
  $("left").textContent = now === "waiting" ? `${ahead} before this one` : left ? `${Math.ceil(left)} s left` : "";
}

function list() {
  $("results").replaceChildren(
    ...state.results.map((result, i) => {
      const image = Object.assign(new Image(), { src: result.url, alt: `Result ${i + 1}, seed ${result.seed}` });
      const button = Object.assign(document.createElement("button"), { type: "button", title: `Seed ${result.seed}` });
      button.append(image);
      button.addEventListener("click", () => choose(i));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}

function choose(i) {
  if (i !== null && !state.results[i]) return;
  state.chosen = i;
  [...$("results").querySelectorAll("button")].forEach((button, k) => button.setAttribute("aria-pressed", k === i));
  stage.result = i === null ? null : state.results[i].bitmap;
  stage.split = $("slider").value = 0;
  if (i !== null) {
    $("save").href = state.results[i].url;
    $("save").download = `${state.name}-${state.results[i].seed}.png`;
  }
  stage.redraw();
  refresh();
}

async function stop() {
  if (!state.job) return;
  state.job.cancelled = true;
  state.job.stop.abort(); // where the server has jobs, nothing listens to this
  if (state.job.id) await cancel(state.job.id, $("token").value);
}

async function accept() {
  if (state.chosen === null) return;
  const { blob } = state.results[state.chosen];
  const badge = $("badge").textContent;
  await open(blob, `${state.name}.png`);
  $("badge").textContent = badge;
}

async function loadMask(file) {
  if (!state.file) throw new Error("Open a photo first, then its mask.");
  const picture = await pictureOf(file, "mask").catch(() => {
    throw new Error(`${file.name} is not a picture that this browser can show.`);
  });
  const { width, height } = stage.frame;
  if (picture.width !== width || picture.height !== height) {
    throw new Error(`The mask is ${picture.width}x${picture.height}, the photo ${width}x${height}; they must be of one size.`);
  }
  mask.add({ kind: "clear" });
  mask.add({ kind: "picture", bitmap: picture.bitmap });
  changed("mask");
  stage.redraw();
}

async function saveMask() {
  if (!state.file) return;
  const { blob } = await mask.picture(stage.frame.width, stage.frame.height);
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${state.name}_mask.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function pick(tool) {
  stage.tool = tool;
  for (const button of document.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === tool);
}

function edit(action) {
  if (!state.file || state.job) return;
  action();
  changed("mask");
  stage.redraw();
}

const keys = {
  b: () => pick("brush"),
  x: () => pick(stage.tool === "eraser" ? "brush" : "eraser"),
  r: () => pick("rectangle"),
  q: () => pick("lasso"),
  i: () => edit(() => mask.add({ kind: "invert" })),
  a: () => guarded(accept),
  "[": () => stage.setSize(stage.size / 1.15),
  "]": () => stage.setSize(stage.size * 1.15),
  escape: () => stage.frame && stage.fit(),
};
const withControl = {
  z: (event) => edit(() => (event.shiftKey ? mask.redo() : mask.undo())),
  y: () => edit(() => mask.redo()),
  enter: () => $("panel").requestSubmit(),
  s: () => state.chosen !== null && $("save").click(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]), textarea, select");
  const key = event.key.toLowerCase();
  const control = event.ctrlKey || event.metaKey;
  if (control ? typing && key !== "enter" && key !== "s" : typing) return;
  if ($("help").open) return;
  if (key === " " && !event.target.matches("button, summary, a")) {
    stage.space = true;
    return event.preventDefault();
  }
  if (key === "tab" && stage.result && event.target === stage.layerCanvas) {
    if (!stage.peeking) {
      stage.peeking = true;
      stage.redraw();
    }
    return event.preventDefault();
  }
  if (/^[1-8]$/.test(key) && !control) return choose(Number(key) - 1);
  const action = (control ? withControl : keys)[key];
  if (!action || event.altKey) return;
  event.preventDefault();
  action(event);
  stage.tint();
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") stage.space = false;
  if (event.key === "Tab" && stage.peeking) {
    stage.peeking = false;
    stage.redraw();
  }
});

for (const button of document.querySelectorAll("[data-tool]")) button.addEventListener("click", () => pick(button.dataset.tool));
$("size").addEventListener("input", () => {
  stage.size = Number($("size").value);
});
$("undo").addEventListener("click", () => edit(() => mask.undo()));
$("redo").addEventListener("click", () => edit(() => mask.redo()));
$("invert").addEventListener("click", () => edit(() => mask.add({ kind: "invert" })));
$("clear").addEventListener("click", () => edit(() => mask.add({ kind: "clear" })));
$("fit").addEventListener("click", () => stage.frame && stage.fit());
$("save-mask").addEventListener("click", () => guarded(saveMask));
$("help-button").addEventListener("click", () => $("help").showModal());
$("slider").addEventListener("input", () => {
  stage.split = $("slider").value / 100;
  stage.redraw();
});
$("panel").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!state.job && state.file) guarded(() => run($("prompt").value));
});
$("erase").addEventListener("click", () => guarded(() => run("")));
$("cancel").addEventListener("click", () => guarded(stop));
$("accept").addEventListener("click", () => guarded(accept));
$("extend-button").addEventListener("click", () => {
  const pixels = Math.round(Number($("extend").value));
  if (pixels > 0) extend(pixels, $("side").value);
  else say("Say by how many pixels the photo is to grow.");
});

$("file").addEventListener("change", ({ target }) => target.files[0] && guarded(() => open(target.files[0], target.files[0].name)));
$("mask-file").addEventListener("change", ({ target }) => target.files[0] && guarded(() => loadMask(target.files[0])));
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) guarded(() => open(file, file.name));
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", name === "dragover");
    const file = name === "drop" && event.dataTransfer.files[0];
    if (file) guarded(() => open(file, file.name));
  });
}
window.addEventListener("beforeunload", () => {
  if (state.job?.id) ask(`v1/jobs/${state.job.id}`, { method: "DELETE", token: $("token").value, keepalive: true }).catch(() => {});
});

async function listModels() {
  const chosen = $("model").value;
  state.models = await models($("token").value);
  $("model").replaceChildren(...state.models.map(({ id }) => new Option(id, id, false, id === chosen)));
  offer();
}
$("model").addEventListener("change", offer);
$("token").addEventListener("change", () => guarded(listModels));
guarded(listModels);
pick("brush");
refresh();
