"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const loops = JSON.parse(document.getElementById("loops").textContent);
const element = (id) => document.getElementById(id);
const storageKey = "loopanimate-study-" + study.study;
const SIDES = ["a", "b"], QUESTIONS = ["q_s", "q_m"];

function shuffled(values) {
  const mixed = [...values];
  for (let last = mixed.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
  }
  return mixed;
}

// A participant's own order of pairs and sides, and the answers so far; a reload goes on where it was.
function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const participant = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const screens = shuffled(study.pairs).map((pair) => ({ picture: pair.picture, loops: shuffled(pair.loops), scores: {} }));
  return { participant, screens, at: 0 };
}
function restored() {
  try { return JSON.parse(localStorage.getItem(storageKey)) || fresh(); } catch { return fresh(); }
}
function keep() {
  try { localStorage.setItem(storageKey, JSON.stringify(state)); } catch { /* private windows have no storage */ }
}
const state = restored();

function open(section) {
  for (const name of ["intro", "screen", "end"]) element(name).hidden = name !== section;
}

function complete(screen) {
  return SIDES.every((side) => QUESTIONS.every((question) => screen.scores[side + "-" + question]));
}

function show() {
  keep();
  if (state.at >= state.screens.length) { open("end"); return; }
  const screen = state.screens[state.at];
  open("screen");
  element("prompt").textContent = study.pictures[screen.picture].prompt || "(no text)";
  element("picture").src = study.pictures[screen.picture].still;
  element("progress").textContent = (state.at + 1) + " of " + state.screens.length;
  element("previous").disabled = state.at === 0;
  element("forward").disabled = !complete(screen);
  shown.clear();
  clock.seconds = 0;
  SIDES.forEach((side, index) => attach(element("canvas-" + side), loops[screen.loops[index]]));
  for (const input of document.querySelectorAll("input[type=radio]")) {
    input.checked = screen.scores[input.name] === Number(input.value);
  }
  scrollTo(0, 0);
}

for (const input of document.querySelectorAll("input[type=radio]")) {
  input.onchange = () => {
    const screen = state.screens[state.at];
    screen.scores[input.name] = Number(input.value);
    element("forward").disabled = !complete(screen);
    keep();
  };
}
function go(screens) { state.at += screens; show(); }
element("begin").onclick = show;
element("previous").onclick = () => go(-1);
element("forward").onclick = () => go(1);
element("review").onclick = () => go(-1);

function answers() {
  return state.screens.flatMap((screen) => SIDES.map((side, index) => ({
    loop: screen.loops[index],
    beside: screen.loops[1 - index],
    q_s: screen.scores[side + "-q_s"],
    q_m: screen.scores[side + "-q_m"],
  })));
}
element("save").onclick = () => {
  const content = { format: study.format, study: study.study, participant: state.participant, answers: answers() };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = "answers_" + state.participant + ".json";
  link.click();
};
