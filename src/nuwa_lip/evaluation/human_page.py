"""What the page of `human` looks like and does: no network, no names, all of it by keyboard, mouse or finger.

Both results always stand side by side, with the question above them, within the window of a phone or of a desktop.
Answers are kept in the browser's storage where it allows that, so that a closed page goes on where it was.
"""

from __future__ import annotations

STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: .8em auto; max-width: 1250px; padding: 0 1em; color: #222; }
h1 { font-size: 1.4em; margin: 0; } p { margin: .5em 0; overflow-wrap: anywhere; }
.question { font-weight: bold; font-size: 1.15em; padding: .3em .5em; background: #fff3c4; border-radius: 4px; }
.pictures { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .6em; }
figure { margin: 0; padding: .5em; text-align: center; }
img { width: 100%; max-height: max(7em, calc(100vh - 21em)); object-fit: contain; display: block; }
button { font: inherit; padding: .5em 1em; cursor: pointer; border: 1px solid #999; border-radius: 4px; }
#choose-left, #choose-right { padding: .5em; } #choose-same { grid-column: 2 / 4; }
@media (hover: hover) { button:hover:enabled { border-color: #06c; background: #dbe9fb; } }
button:focus-visible { outline: 3px solid #06c; }
kbd { border: 1px solid #999; border-radius: 3px; padding: 0 .3em; font-size: .85em; background: #fff; }
[hidden] { display: none; }
@media (hover: none) { kbd { display: none; } }
@media (max-width: 700px) and (orientation: portrait) {
  body { font-size: 15px; padding: 0 .5em; }
  .pictures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  figure { grid-column: 1 / 3; padding: 0; } figure img { max-height: 20vh; }
  #choose-left, #choose-right { padding: .2em; } #choose-same { grid-column: 1 / 3; }
}
"""

SCRIPT = """
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const questions = Object.keys(data.questions);
const choices = ["left", "same", "right"];
const keys = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "same", 1: "left", 2: "same", 3: "right" };
const store = "nuwa-lip-human-" + data.page;
const at = id => document.getElementById(id);
const total = data.pairs.length * questions.length;
let given = [];  // one choice a question, pair after pair
let keeps = true;

try {
  const kept = JSON.parse(localStorage.getItem(store) || "{}");
  if (Array.isArray(kept.given)) given = kept.given.filter(choice => choices.includes(choice));
  at("rater").value = kept.rater || "";
} catch (error) { keeps = false; }  // a browser may keep nothing of local files

function keep() {
  at("saved").textContent = "";
  at("anew").hidden = true;
  const state = JSON.stringify({ given, rater: at("rater").value });
  try { localStorage.setItem(store, state); } catch (error) { keeps = false; }
}

function answers() {
  const found = [];
  given.forEach((choice, i) => {
    const pair = Math.floor(i / questions.length);
    if (!found[pair]) found[pair] = { pair };
    found[pair][questions[i % questions.length]] = choice;
  });
  return { page: data.page, rater: at("rater").value.trim(), answers: found };
}

function show() {
  const done = given.length >= total;
  at("pair").hidden = done;
  at("done").hidden = !done;
  at("back").disabled = given.length === 0;
  at("save").disabled = given.length === 0;
  at("save").textContent = done ? "save the answers" : "save what there is";
  const kept = keeps ? "kept in this browser" : "lost with this page unless you save them: this browser keeps nothing";
  at("progress").textContent = given.length + " of " + total + " answers, " + kept;
  if (done) { at("save").focus(); return; }
  const index = Math.floor(given.length / questions.length), part = given.length % questions.length;
  const pair = data.pairs[index];
  at("caption").textContent = pair.caption;
  for (const name of ["hole", "left", "right"]) at(name).src = pair[name];
  at("where").textContent = `Pair ${index + 1} of ${data.pairs.length}, question ${part + 1} of ${questions.length}`;
  at("question").textContent = data.questions[questions[part]];
  // the pictures stay for the next question: draw the eye to it
  at("question").parentElement.animate([{ background: "#fb0" }, {}], 800);
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
  const rater = at("rater").value.replace(/[^\\p{L}\\p{N}_-]/gu, "") || "rater";
  link.download = "answers-" + data.page + "-" + rater + ".json";
  link.click();
  at("saved").textContent = "Saved as " + link.download + ": please send this file to whoever gave you the page.";
  at("anew").hidden = given.length < total;
}

function anew() {
  given = [];
  at("rater").value = "";
  keep();
  show();
}

for (const choice of choices) {
  at("choose-" + choice).addEventListener("click", event => {
    if (event.detail > 1) return;  // the second click of a double click is no answer to the next question
    if (event.detail === 1) event.currentTarget.blur();  // nothing is chosen beforehand
    choose(choice);
  });
}
at("back").addEventListener("click", back);
at("save").addEventListener("click", save);
at("anew").addEventListener("click", anew);
at("rater").addEventListener("input", keep);
document.addEventListener("keydown", event => {
  if (event.target === at("rater")) {
    if (event.key === "Enter") at("rater").blur();  // on to the pairs
    return;
  }
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const chosen = keys[event.key], known = chosen || event.key === "Backspace";
  // a key that is held down is one answer
  if (known || (event.repeat && event.target.tagName === "BUTTON")) event.preventDefault();
  if (event.repeat || !known) return;
  if (chosen) choose(chosen);
  else back();
});
show();
"""


def body(title: str) -> str:
    """The page's content, for a title that is escaped already."""
    return f"""
<h1>{title}</h1>
<p>Two methods have painted the hole of each picture, shown in grey. Click the better result.
<label>Your name or initials: <input id="rater" autocomplete="off" size="12"></label></p>
<div id="pair">
<p class="question" aria-live="polite"><span id="where"></span>: <span id="question"></span></p>
<p>Caption: <em id="caption"></em></p>
<div class="pictures">
<figure><img id="hole" alt="the picture with its hole"><figcaption>to be painted</figcaption></figure>
<button id="choose-left"><img id="left" alt="">left <kbd>&larr;</kbd> <kbd>1</kbd></button>
<button id="choose-right"><img id="right" alt="">right <kbd>&rarr;</kbd> <kbd>3</kbd></button>
<button id="choose-same">both the same <kbd>&darr;</kbd> <kbd>2</kbd></button>
</div>
</div>
<p id="done" hidden>That was all. Thank you! Now save the answers.</p>
<p><button id="back">undo <kbd>Backspace</kbd></button> <button id="save"></button> <span id="progress"></span></p>
<p id="saved" aria-live="polite"></p>
<p><button id="anew" hidden>start anew, for another person</button></p>
"""
