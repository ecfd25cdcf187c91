"use strict";

const at = (id) => document.getElementById(id);
let lane = 0;
let shownStep = null;
let shownLane = null;

function duration(seconds) {
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

const short = (value) => (value === null ? "not finite" : Number(value).toPrecision(4));

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
    button.addEventListener("click", () => { lane = number; ask(); });
    bar.append(button);
  });
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

function say(state) {
  const words = [`step ${state.step}/${state.steps}`];
  if (state.evaluations_per_second) {
    words.push(`${state.evaluations_per_second.toPrecision(3)} evaluations/s`);
  }
  if (state.message) words.push(state.message);
  else if (state.stopping) words.push("stopping …");
  else if (state.seconds_left !== null) words.push(`${duration(state.seconds_left)} left`);
  at("status").textContent = words.join("   ");
}

function draw(state) {
  say(state);
  at("bar").value = state.step / state.steps;
  document.title = `${state.step}/${state.steps} jaxstyle`;
  chooseLanes(state.labels);
  [...at("lanes").children].forEach((b, n) => b.setAttribute("aria-pressed", String(n === lane)));
  if (state.step === shownStep && lane === shownLane && !state.message) return;
  [shownStep, shownLane] = [state.step, lane];
  at("picture").src = `picture/${lane}?step=${state.step}`;
  at("curves").src = `curves?step=${state.step}`;
  at("picture").hidden = at("curves").hidden = false;
  tabulate(state);
}

let failures = 0;

async function ask() {
  try {
    const state = await (await fetch("state")).json();
    failures = 0;
    if (state.step !== null) draw(state);
    if (state.message) at("stop").disabled = true;
    return !state.message;
  } catch {
    failures += 1;
    if (failures > 3) {
      at("status").textContent = "the run has ended";
      at("stop").disabled = true;
    }
    return failures <= 3;
  }
}

async function loop() {
  if (await ask()) setTimeout(loop, 1000);
}

at("slider").addEventListener("input", slide);
at("stop").addEventListener("click", async () => {
  at("stop").disabled = true;
  await fetch("stop", { method: "POST" });
  ask();
});
slide();
loop();
