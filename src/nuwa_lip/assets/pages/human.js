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
  const rater = at("rater").value.replace(/[^\p{L}\p{N}_-]/gu, "") || "rater";
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
