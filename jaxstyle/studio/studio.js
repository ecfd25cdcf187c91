"use strict";
// The page of the studio: a form that starts runs, the run under way, and the finished images.

const at = (id) => document.getElementById(id);
const SIDE_BY_SIDE = ["content", "noise", "style"];
const NOISE_BLEND = 0.3;   // so that several images from one start differ
const REMEMBERED = "jaxstyle studio";
const STARTS = { content: "the photograph", noise: "noise", style: "the style" };

let state = { version: 0, photos: [], styles: [], entries: [], results: [], presets: [] };
let shown = null;          // number of the finished image that is looked at; null: the run under way
let element = 0;           // of the run under way
let photo = null, styles = new Set();

// Small helpers.

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function tell(id, text = "") {
  at(id).textContent = text;
  at(id).hidden = !text;
}

function source(image, address) {
  if (image.getAttribute("src") !== address) image.src = address;
}

function duration(seconds) {
  const whole = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60) % 60, hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)} min`;
}

const result = (number) => state.results.find((found) => found.number === number);
const running = () => state.entries.find((entry) => entry.status === "running");
const short = (loss) => (loss === null ? "not finite" : Number(loss).toPrecision(4));

async function post(address, body) {
  try {
    const answer = await fetch(address, { method: "POST", body });
    return answer.status === 404 ? { error: "it is not there any more" } : await answer.json();
  } catch {
    return { error: "the studio does not answer; is it still running?" };
  }
}

// Images to choose from. New nodes only for what is new, so that focus and pictures stay.

function offer(kind, type, isChosen, choose) {
  const box = at(kind);
  const tiles = new Map([...box.querySelectorAll("[data-number]")].map((t) => [t.dataset.number, t]));
  for (const image of state[kind]) {
    const number = String(image.number);
    if (!tiles.has(number)) {
      const input = make("input", { type, name: kind, ariaLabel: image.name });
      input.addEventListener("change", () => { choose(image.number, input.checked); remember(); });
      const forget = make("button", { type: "button", title: `Remove ${image.name}`, ariaLabel: `Remove ${image.name}`, textContent: "×" });
      forget.addEventListener("click", () => change("forget", { kind, number: image.number }, `${kind}-error`));
      const tile = make("div", { className: "tile", title: image.name },
        make("img", { src: `${kind}/${number}`, alt: "" }), input, forget);
      tile.dataset.number = number;
      box.insertBefore(tile, box.lastElementChild);
      tiles.set(number, tile);
    }
    tiles.get(number).querySelector("input").checked = isChosen(image.number);
  }
  const there = new Set(state[kind].map((image) => String(image.number)));
  for (const [number, tile] of tiles) if (!there.has(number)) tile.remove();
}

function drawChoices() {
  if (!state.photos.some((image) => image.number === photo)) photo = null;
  for (const number of styles) if (!state.styles.some((image) => image.number === number)) styles.delete(number);
  offer("photos", "radio", (n) => n === photo, (n) => { photo = n; });
  offer("styles", "checkbox", (n) => styles.has(n), (n, on) => (on ? styles.add(n) : styles.delete(n)));
}

let uploads = Promise.resolve();   // one after the other, each with its own problems to tell

function upload(kind, files) {
  uploads = uploads.then(() => uploadNow(kind, files));
  return uploads;
}

async function uploadNow(kind, files) {
  const problems = [];
  for (const file of files) {
    tell(`${kind}-error`, `reading ${file.name} …`);
    const answer = await post(`upload?kind=${kind}&name=${encodeURIComponent(file.name)}`, file);
    if (answer.error) problems.push(answer.error);
    else if (kind === "photos") photo = answer.number;
    else styles.add(answer.number);
  }
  tell(`${kind}-error`, problems.join("; "));
  await ask();
  remember();
}

function takesFiles(kind) {
  const area = at(`${kind}-area`), input = at(`${kind}-file`);
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";   // so that the same file can be chosen again
    upload(kind, files);
  });
  area.addEventListener("dragover", () => area.classList.add("over"));
  for (const name of ["dragleave", "drop"]) area.addEventListener(name, () => area.classList.remove("over"));
}

// The form.

function settings() {
  const start = at("start").value, count = Number(at("count").value);
  const starts = start === "each" ? SIDE_BY_SIDE : Array(count).fill(start);
  const alike = new Set(starts).size < starts.length && start !== "noise";
  return {
    photo, styles: [...styles], strength: Number(at("strength").value), size: Number(at("size").value),
    starts, noise_blend: alike ? NOISE_BLEND : 0, seed: Number(at("seed").value),
    preset: at("preset").value, steps: at("steps").value ? Number(at("steps").value) : null,
  };
}

function fill(given) {
  photo = given.photo;
  styles = new Set(given.styles);
  const starts = given.starts ?? ["content"];
  at("strength").value = given.strength ?? state.strength;
  at("size").value = given.size ?? 512;
  at("seed").value = given.seed ?? 0;
  at("steps").value = given.steps ?? "";
  at("start").value = new Set(starts).size > 1 ? "each" : starts[0];
  at("count").value = new Set(starts).size > 1 ? 1 : starts.length;
  at("preset").value = given.preset ?? "default";
  drawChoices();
  drawForm();
}

function drawForm() {
  at("strength-shown").textContent = Number(at("strength").value).toFixed(2);
  at("count").disabled = at("start").value === "each";
}

function remember() {
  tell("run-error");   // it was about the settings before
  try { localStorage.setItem(REMEMBERED, JSON.stringify(settings())); } catch { /* a private window */ }
}

function recall() {
  at("preset").replaceChildren(...state.presets.map((name) => new Option(name, name)));
  let kept = null;
  try { kept = JSON.parse(localStorage.getItem(REMEMBERED)); } catch { /* none */ }
  // In another browser, or at another port: as the last run.
  const last = state.entries.at(-1) ?? state.results.at(-1);
  fill(kept ?? last?.settings ?? { photo: state.photos.at(-1)?.number ?? null, styles: [] });
}

async function start(given) {
  tell("run-error");
  tell("run-notice");
  const answer = await post("run", JSON.stringify(given));
  if (answer.error) return tell("run-error", answer.error);
  tell("run-notice", answer.notice);
  shown = null;
  element = 0;
  await ask();
  at("stage").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

async function change(what, given, error = "run-error") {
  const answer = await post(what, JSON.stringify(given));
  tell(error, answer.error);
  await ask();
}

// Words.

const nameOf = (kind, number) => state[kind].find((image) => image.number === number)?.name ?? "a removed image";

// `done`: of a finished image, whose size and steps are told beside.
function words(given, done = false) {
  const parts = [`strength ${Number(given.strength ?? state.strength).toFixed(2)}`];
  if (!done) parts.push(`${given.size} px`);
  if (given.continues !== null && given.continues !== undefined) parts.push(`from image ${given.continues}`);
  else parts.push(`from ${given.starts.map((s) => STARTS[s]).filter((s, n, all) => all.indexOf(s) === n).join(", ")}`);
  if (given.starts.length > 1) parts.push(`${given.starts.length} images`);
  if (given.seed || given.noise_blend || given.starts[0] === "noise") parts.push(`seed ${given.seed}`);
  if (given.preset !== "default") parts.push(given.preset);
  if (given.steps && !done) parts.push(`${given.steps} steps`);
  return parts.join(" · ");
}

// The image that is looked at.

function compare(before, after, names, width, height) {
  at("frame").hidden = false;
  at("frame").style.setProperty("--aspect", width / height);
  source(at("before"), before);
  source(at("after"), after);
  [at("before-name").textContent, at("after-name").textContent] = names;
}

function slide() {
  const split = Number(at("slider").value);
  at("after").style.clipPath = `inset(0 0 0 ${split}%)`;
  at("handle").style.left = `${split}%`;
  at("before-name").hidden = split < 25;
  at("after-name").hidden = split > 75 || split === 0;
}

function drawTabs(images, chosen, choose) {
  at("tabs").hidden = images.length < 2;
  if (images.length < 2) return;
  const key = images.map((image) => image.key).join();
  if (at("tabs").dataset.key !== key) {
    at("tabs").dataset.key = key;
    at("tabs").replaceChildren(...images.map((image, n) => {
      const button = make("button", { type: "button" }, make("img", { alt: "" }), make("span"));
      button.addEventListener("click", () => choose(n));
      return button;
    }));
  }
  [...at("tabs").children].forEach((button, n) => {
    source(button.firstChild, images[n].address);
    button.lastChild.textContent = images[n].label;
    button.setAttribute("aria-pressed", String(n === chosen));
  });
}

function drawRunning(entry) {
  const now = state.running, number = entry.number;
  at("live").hidden = false;
  at("stop").disabled = state.stopping;
  if (!now) {
    at("frame").hidden = at("tabs").hidden = at("curves-box").hidden = true;
    at("bar").removeAttribute("value");
    at("live-words").textContent = state.stopping ? "stopping …" : "preparing: images are read and programs compiled …";
    return;
  }
  element = Math.min(element, now.losses.length - 1);
  const version = `run=${number}&step=${now.step}`;
  compare(`content?run=${number}`, `live/${element}?${version}`, ["photograph", `step ${now.step}`], now.width, now.height);
  drawTabs(now.losses.map((loss, n) => ({
    key: `live ${number} ${n}`, address: `live-small/${n}?${version}`, label: `${now.labels[n]} · ${short(loss)}`,
  })), element, (n) => { element = n; draw(); });
  at("curves-box").hidden = false;
  source(at("curves"), `live-curves?${version}`);
  at("bar").value = now.step / now.steps;
  const parts = [`step ${now.step} of ${now.steps}`, `loss ${short(now.losses[element])}`];
  if (state.stopping) parts.push("stopping after the steps under way …");
  else if (now.seconds_left !== null) parts.push(`${duration(now.seconds_left)} left`);
  else parts.push("compiling …");
  at("live-words").textContent = parts.join(" · ");
}

function drawResult(about) {
  const number = about.number;
  at("about").hidden = at("curves-box").hidden = false;
  source(at("curves"), `curves/${number}`);
  const others = state.results.filter((found) => found.number !== number);
  const choices = [["photo", "the photograph"], ...others.map((o) => [String(o.number), `image ${o.number}: ${words(o.settings)}`]).reverse()];
  const against = at("against"), was = against.value;
  const key = choices.map(([value]) => value).join();
  if (against.dataset.key !== key) {
    against.dataset.key = key;
    against.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
    against.value = choices.some(([value]) => value === was) ? was : "photo";
  }
  const other = against.value === "photo" ? null : against.value;
  compare(other ? `image/${other}` : `before/${number}`, `image/${number}`,
    [other ? `image ${other}` : "photograph", `image ${number}`], about.width, about.height);
  const siblings = state.results.filter((found) => found.run === about.run);
  drawTabs(siblings.map((found) => ({
    key: `image ${found.number}`, address: `small/${found.number}`, label: `image ${found.number} · ${short(found.loss)}`,
  })), siblings.indexOf(about), (n) => { shown = siblings[n].number; draw(); });
  const name = about.photo.replace(/\.\w+$/, "");
  at("download").href = `whole/${number}`;
  at("download").download = `${name}-${number}.png`;
  const end = about.stopped ? `stopped after ${about.steps} steps` : `${about.steps} steps in ${duration(about.seconds)}`;
  at("about-words").replaceChildren(
    make("b", { textContent: `${about.photo} in the style of ${about.styles.join(", ")}` }), make("br"),
    `image ${number} · ${about.width}×${about.height} · ${words(about.settings, true)} · ${end} · loss ${short(about.loss)}`
      + (about.diverged ? " · the loss went up: this is the best image of the run" : ""));
}

function drawStage() {
  const entry = running();
  if (shown !== null && !result(shown)) shown = null;
  if (shown === null && !entry && state.results.length) shown = state.results.at(-1).number;
  const about = shown === null ? null : result(shown);
  at("empty").hidden = Boolean(about || entry);
  at("live").hidden = at("about").hidden = true;
  if (about) drawResult(about);
  else if (entry) drawRunning(entry);
  else at("frame").hidden = at("tabs").hidden = at("curves-box").hidden = true;
}

// Runs that wait, and finished images.

function drawQueue() {
  at("queue-box").hidden = !state.entries.length || (state.entries.length === 1 && running() && shown === null);
  at("queue").replaceChildren(...state.entries.map((entry) => {
    const text = make("span", { textContent: `${entry.status === "failed" ? "" : `${entry.status} · `}${nameOf("photos", entry.settings.photo)} · ${words(entry.settings)}` });
    if (entry.error) text.append(make("br"), make("span", { className: "error", textContent: entry.error }));
    const button = (textContent, act) => {
      const node = make("button", { type: "button", textContent });
      node.addEventListener("click", act);
      return node;
    };
    const buttons = entry.status === "running"
      ? [button("Show", () => { shown = null; draw(); })]
      : [button("Use settings", () => { fill(entry.settings); remember(); }),
         button(entry.status === "failed" ? "Dismiss" : "Cancel", () => change("remove", { number: entry.number }))];
    return make("li", {}, make("img", { src: `photos/${entry.settings.photo}`, alt: "" }), text, ...buttons);
  }));
}

function drawStrip() {
  at("finished").hidden = !state.results.length;
  at("finished-count").textContent = state.results.length;
  const strip = at("strip");
  const cards = new Map([...strip.children].map((card) => [card.dataset.number, card]));
  for (const about of state.results) {
    const number = String(about.number);
    if (cards.has(number)) { cards.delete(number); continue; }
    const caption = `${about.number} · ${Number(about.settings.strength ?? state.strength).toFixed(2)} · ${Math.max(about.width, about.height)} px`;
    const card = make("button", { type: "button", title: `${about.photo}: ${words(about.settings)}` },
      make("img", { src: `small/${number}`, alt: `image ${number}`, loading: "lazy" }), caption);
    card.dataset.number = number;
    card.addEventListener("click", () => { shown = about.number; draw(); });
    strip.prepend(card);
  }
  for (const card of cards.values()) card.remove();
  for (const card of strip.children) {
    card.setAttribute("aria-pressed", String(Number(card.dataset.number) === shown));
    // One stop of the Tab key; arrows go on from there.
    card.tabIndex = card === (strip.querySelector("[aria-pressed=true]") ?? strip.firstChild) ? 0 : -1;
  }
}

at("strip").addEventListener("keydown", (event) => {
  const cards = [...at("strip").children], here = cards.indexOf(document.activeElement);
  const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: cards.length - 1 }[event.key];
  if (to === undefined || !cards[to]) return;
  event.preventDefault();
  cards[to].focus();
  cards[to].click();
});

// Variations of a finished image.

function vary(changes) {
  const about = result(shown);
  start({ ...about.settings, ...changes(about.settings, about) });
}

const strengthOf = (given) => given.strength ?? state.strength;
const stronger = (by) => (given) => ({ strength: Math.min(1, Math.max(0, Math.round(20 * (strengthOf(given) + by)) / 20)) });

function otherSeeds(given) {
  const starts = Array(4).fill(given.starts[0]);
  const noisy = given.starts[0] === "noise" && given.continues === null;
  return { starts, seed: given.seed + 1, noise_blend: noisy ? given.noise_blend : NOISE_BLEND };
}

function larger(given, about) {
  return { continues: about.number, size: Math.round(1.5 * Math.max(about.width, about.height)), starts: ["content"], noise_blend: 0 };
}

at("more").addEventListener("click", () => vary(stronger(0.15)));
at("less").addEventListener("click", () => vary(stronger(-0.15)));
at("seeds").addEventListener("click", () => vary(otherSeeds));
at("larger").addEventListener("click", () => vary(larger));
at("reuse").addEventListener("click", () => { fill(result(shown).settings); remember(); });
at("remove").addEventListener("click", () => {
  const button = at("remove");
  if (button.dataset.sure !== String(shown)) {
    button.dataset.sure = shown;
    button.textContent = "Remove for good?";
    setTimeout(() => { button.dataset.sure = ""; button.textContent = "Remove"; }, 4000);
    return;
  }
  const order = state.results.map((found) => found.number), place = order.indexOf(shown);
  const number = shown;
  shown = order[place + 1] ?? order[place - 1] ?? null;
  change("remove", { number });
});

// The page as a whole.

function draw() {
  const entry = running();
  drawStage();
  drawQueue();
  drawStrip();
  const now = entry && state.running, waiting = state.entries.filter((e) => e.status === "waiting").length;
  const percent = now ? `${Math.round((100 * now.step) / now.steps)} %` : "";
  document.title = (percent ? `${percent} · ` : "") + "jaxstyle studio";
  const parts = [entry ? (now ? `running, ${percent}` : "preparing") : "ready"];
  if (waiting) parts.push(`${waiting} waiting`);
  if (state.network) parts.push(`network ${state.network}`);
  at("status").textContent = state.message || parts.join(" · ");
  at("run").textContent = entry ? "Add to queue" : "Run";
}

let failures = 0, asked = 0;
// The server waits at the end until every tab has been told.
const tab = Math.random().toString(36).slice(2);

async function ask() {
  const mine = ++asked;
  let found;
  try {
    const answer = await fetch(`state?since=${state.version}&page=${tab}`);
    if (!answer.ok) throw new Error(answer.status);
    found = await answer.json();
  } catch {
    failures += 1;
    if (failures > 2) at("status").textContent = state.message || "the studio does not answer; start it again with jaxstyle studio";
    return;
  }
  failures = 0;
  if (mine < asked) return;  // A later answer is on its way.
  const before = running()?.number, first = !state.presets.length;
  Object.assign(state, found);
  // Who watched the run sees what became of it.
  if (before !== undefined && running()?.number !== before && shown === null && result(before)) shown = before + element;
  if (first) recall();
  else if (found.photos) drawChoices();
  draw();
}

async function loop() {
  await ask();
  if (!state.message) setTimeout(loop, running() ? 700 : 1500);
}

at("form").addEventListener("submit", (event) => { event.preventDefault(); remember(); start(settings()); });
at("form").addEventListener("input", () => { drawForm(); remember(); });
at("slider").addEventListener("input", slide);
at("against").addEventListener("change", () => { if (at("slider").value === "0") at("slider").value = 50; slide(); draw(); });
at("stop").addEventListener("click", async () => { at("stop").disabled = true; await post("stop"); ask(); });
takesFiles("photos");
takesFiles("styles");
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  upload(event.target.closest?.("#styles-area") ? "styles" : "photos", [...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) upload("photos", [...event.clipboardData.files]); });
slide();
loop();
