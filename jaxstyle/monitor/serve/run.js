"use strict";

let lane = 0;
let shownStep = null;
let shownLane = null;
let latest = null;
// The images at the end, which outlive the server, by address.
const kept = new Map();

function slide() {
  const percent = Number(at("slider").value);
  // The painted picture lies over the content picture, right of the edge.
  at("over").style.clipPath = `inset(0 0 0 ${percent}%)`;
  at("edge").style.left = `${percent}%`;
  at("edge").hidden = percent === 0 || percent === 100;
}

function chooseLanes(labels) {
  const bar = at("lanes");
  if (labels.length < 2 || bar.childElementCount === labels.length) return;
  bar.hidden = false;
  labels.forEach((label, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", () => { lane = number; draw(latest); });
    bar.append(button);
  });
  fit();
}

function tabulate(state) {
  const names = Object.keys(state.terms[0]);
  const row = (cells, kind) => {
    const line = document.createElement("tr");
    for (const cell of cells) {
      const box = document.createElement(kind);
      box.textContent = cell;
      line.append(box);
    }
    return line;
  };
  const rows = [row(["", "loss", ...names], "th")];
  state.losses.forEach((loss, number) => {
    const label = state.labels.length > 1 ? state.labels[number] : "best so far";
    rows.push(row([label, short(loss), ...names.map((n) => short(state.terms[number][n]))], "td"));
  });
  at("terms").replaceChildren(...rows);
}

async function keep(state) {
  const pictures = state.labels.map((_, number) => `picture/${number}?step=${state.step}`);
  try {
    for (const address of [...pictures, `curves?step=${state.step}`, "content"]) {
      kept.set(address, URL.createObjectURL(await (await fetch(address)).blob()));
    }
    at("content").src = kept.get("content");
  } catch {
    // The server has gone; the page shows what it has.
  }
}

async function draw(state) {
  latest = state;
  if (state.step === null) {
    if (state.message) say([], state);
    return;
  }
  if (state.message && !kept.size) await keep(state);
  const words = [`step ${state.step}/${state.steps}`];
  if (state.evaluations_per_second) {
    words.push(`${state.evaluations_per_second.toPrecision(3)} evaluations/s`);
  }
  say(words, state);
  at("bar").value = state.step / state.steps;
  document.title = `${state.step}/${state.steps} jaxstyle`;
  chooseLanes(state.labels);
  [...at("lanes").children].forEach((b, n) => b.setAttribute("aria-pressed", String(n === lane)));
  if (state.step === shownStep && lane === shownLane && !state.message) return;
  const source = (address) => kept.get(address) ?? address;
  [shownStep, shownLane] = [state.step, lane];
  at("picture").src = source(`picture/${lane}?step=${state.step}`);
  at("curves").src = source(`curves?step=${state.step}`);
  at("picture").hidden = at("curves").hidden = false;
  tabulate(state);
}

function fit() {
  const { naturalWidth, naturalHeight } = at("content"), style = at("frame").style;
  if (naturalHeight) style.setProperty("--ratio", naturalWidth / naturalHeight);
  style.setProperty("--rest", `${at("frame").offsetTop + 60}px`);
}

at("content").addEventListener("load", fit);
window.addEventListener("resize", fit);
fit();
at("slider").addEventListener("input", slide);
slide();
watch(draw);
