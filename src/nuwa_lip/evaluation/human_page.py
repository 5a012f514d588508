"""What the page of `human` looks like and does: no network, no names, all of it by keyboard or mouse.

Answers are kept in the browser's storage where it allows that, so that a closed page goes on where it was.
"""

from __future__ import annotations

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5em auto; max-width: 1250px; padding: 0 1em; color: #222; }
.pictures { display: flex; gap: 1em; flex-wrap: wrap; }
figure { margin: 0; } figcaption { text-align: center; }
img { width: 384px; max-width: 100%; height: auto; display: block; background: #eee; }
button { font: inherit; padding: .4em 1em; margin: .2em; cursor: pointer; }
button:focus-visible { outline: 3px solid #06c; }
.question { font-weight: bold; font-size: 1.1em; }
kbd { border: 1px solid #999; border-radius: 3px; padding: 0 .3em; font-size: .85em; }
[hidden] { display: none; }
"""

SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const questions = Object.keys(data.questions);
const choices = ["left", "same", "right"];
const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "same", 1: "left", 2: "same", 3: "right" };
const store = "nuwa-lip-human-" + data.page;
const at = id => document.getElementById(id);
let given = [];  // one choice a question, pair after pair

try {
  const kept = JSON.parse(localStorage.getItem(store) || "{}");
  if (Array.isArray(kept.given)) given = kept.given.filter(choice => choices.includes(choice));
  at("rater").value = kept.rater || "";
} catch (error) { /* the browser keeps nothing of local files */ }

const total = data.pairs.length * questions.length;

function keep() {
  try { localStorage.setItem(store, JSON.stringify({ given, rater: at("rater").value })); } catch (error) { /* same */ }
}

function answers() {
  const found = [];
  given.forEach((choice, i) => {
    const pair = Math.floor(i / questions.length);
    if (!found[pair]) found[pair] = { pair };
    found[pair][questions[i % questions.length]] = choice;
  });
  return { page: data.page, rater: at("rater").value, answers: found };
}

function show() {
  const done = given.length >= total;
  at("pair").hidden = done;
  at("done").hidden = !done;
  at("progress").textContent = given.length + " of " + total + " answers";
  at("back").disabled = given.length === 0;
  if (done) { at("save").focus(); return; }
  const pair = data.pairs[Math.floor(given.length / questions.length)];
  at("caption").textContent = pair.caption;
  for (const name of ["hole", "left", "right"]) at(name).src = pair[name];
  at("question").textContent = data.questions[questions[given.length % questions.length]];
}

function choose(choice) {
  if (given.length >= total) return;
  given.push(choice);
  keep();
  show();
}

function back() {
  given.pop();
  keep();
  show();
}

function save() {
  const text = JSON.stringify(answers(), null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const rater = at("rater").value.replace(/[^A-Za-z0-9_-]/g, "") || "rater";
  link.download = "answers-" + data.page + "-" + rater + ".json";
  document.body.append(link);
  link.click();
  link.remove();
}

for (const choice of choices) at("choose-" + choice).addEventListener("click", () => choose(choice));
at("back").addEventListener("click", back);
for (const id of ["save", "save-early"]) at(id).addEventListener("click", save);
at("rater").addEventListener("input", keep);
document.addEventListener("keydown", event => {
  if (event.target === at("rater") || event.ctrlKey || event.altKey || event.metaKey) return;
  const chosen = keys[event.key];
  if (chosen) choose(chosen);
  else if (event.key === "Backspace") back();
  else return;
  event.preventDefault();
});
show();
"""


def body(title: str) -> str:
    """The page's content, for a title that is escaped already."""
    return f"""
<h1>{title}</h1>
<p>Each picture had a hole, shown in grey, which two methods have painted. Say which result you prefer.
<label>Your name or initials: <input id="rater" autocomplete="off"></label></p>
<p id="progress" aria-live="polite"></p>
<div id="pair">
<p>Caption: <em id="caption"></em></p>
<div class="pictures">
<figure><img id="hole" alt="the picture with its hole"><figcaption>to be painted</figcaption></figure>
<figure><img id="left" alt="left result"><figcaption>left</figcaption></figure>
<figure><img id="right" alt="right result"><figcaption>right</figcaption></figure>
</div>
<p class="question" id="question" aria-live="polite"></p>
<p><button id="choose-left">left <kbd>&larr;</kbd> <kbd>1</kbd></button>
<button id="choose-same">the same <kbd>&darr;</kbd> <kbd>2</kbd></button>
<button id="choose-right">right <kbd>&rarr;</kbd> <kbd>3</kbd></button></p>
</div>
<div id="done" hidden><p>That was all. Thank you!</p><p><button id="save">save the answers</button></p></div>
<p><button id="back">undo <kbd>Backspace</kbd></button> <button id="save-early">save what there is</button></p>
"""
