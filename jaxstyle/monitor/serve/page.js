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
  if (state.message) words.push(state.message);
  else if (state.stopping) words.push("stopping …");
  else if (state.seconds_left !== null) words.push(`${duration(state.seconds_left)} left`);
  at("status").textContent = words.join("   ");
}

// Ask again and again, until the server has gone: it answers once a second, or at once when the run
// ends. `draw` takes each state until then, `since` says how much of it is here already.
function watch(draw, since = () => 0) {
  let failures = 0, ended = false;
  // The server waits at the end until every page has been told.
  const name = Math.random().toString(36).slice(2);

  async function ask(wait) {
    let state;
    try {
      state = await (await fetch(`state?since=${since()}&page=${name}&wait=${wait}`)).json();
    } catch {
      failures += 1;
      if (!ended && failures < 4) return new Promise((go) => setTimeout(() => go(true), 1000));
      const gone = "the command has ended: this page cannot be loaded again";
      at("status").textContent = ended ? `${at("status").textContent} (${gone})` : gone;
      at("stop").disabled = true;
      return false;
    }
    failures = 0;
    if (ended) return true;
    ended = Boolean(state.message);
    if (ended) at("stop").disabled = true;
    await draw(state);
    return true;
  }

  async function loop() {
    for (let wait = ""; await ask(wait);) wait = ended ? "close" : "end";
  }

  at("stop").addEventListener("click", async () => {
    at("stop").disabled = true;
    at("status").textContent = "stopping …";
    await fetch("stop", { method: "POST" });
  });
  loop();
}
