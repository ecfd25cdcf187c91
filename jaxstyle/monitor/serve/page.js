"use strict";
// What the pages of a run and of a grid have in common.

const at = (id) => document.getElementById(id);
const short = (value) => (value === null ? "not finite" : Number(value).toPrecision(4));

function duration(seconds) {
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function say(words, state) {
  if (state.message) words.push(`${state.message}; this page cannot be loaded again`);
  else if (state.stopping) words.push("stopping …");
  else if (state.seconds_left !== null) words.push(`${duration(state.seconds_left)} left`);
  at("status").textContent = words.join("   ");
}

// Ask once a second until the run has ended; `draw` takes each state, `since` says how much of it
// is here already.
function watch(draw, since = () => 0) {
  let failures = 0;
  // The server waits at the end until every page has been told.
  const name = Math.random().toString(36).slice(2);

  async function ask() {
    let state;
    try {
      state = await (await fetch(`state?since=${since()}&page=${name}`)).json();
    } catch {
      failures += 1;
      if (failures < 4) return true;
      at("status").textContent = "the run has ended";
      at("stop").disabled = true;
      return false;
    }
    failures = 0;
    draw(state);
    if (state.message) at("stop").disabled = true;
    return !state.message;
  }

  async function loop() {
    if (await ask()) setTimeout(loop, 1000);
  }

  at("stop").addEventListener("click", async () => {
    at("stop").disabled = true;
    at("status").textContent = "stopping …";
    await fetch("stop", { method: "POST" });
  });
  loop();
  return ask;
}
