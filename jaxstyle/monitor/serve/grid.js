"use strict";

// A table with the last axis along the rows, as on the contact sheet, unless it would be wider.
const MOST_COLUMNS = 10;
const figures = [];
let seen = 0;
let objectives = [];

function element(kind, name, text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

// What varies, as `axis = value` a line.
const named = (axes, values) => axes.map((axis, n) => `${axis} = ${values[n]}`).join("\n");

function figure(number, caption) {
  const made = element("figure", "waiting");
  const link = element("a", "");
  const image = element("img", "");
  image.alt = caption;
  image.loading = "lazy";
  image.hidden = true;
  link.append(image);
  const text = element("figcaption", "", "waiting");
  made.append(link, text);
  figures[number] = { made, link, image, text, loss: null };
  return made;
}

function lay({ title, axes, labels, objectives: found }) {
  objectives = found;
  at("title").textContent = title;
  document.title = `${title} jaxstyle`;
  const along = labels.map((values) => named(axes.slice(-1), values.slice(-1)));
  const down = labels.map((values) => named(axes.slice(0, -1), values.slice(0, -1)));
  const columns = [...new Set(along)], rows = [...new Set(down)];
  const table = at("cells");
  if (columns.length > MOST_COLUMNS || rows.length === 1) {
    table.className = "flow";
    labels.forEach((values, number) => {
      const cell = figure(number, named(axes, values));
      cell.append(element("figcaption", "settings", named(axes, values)));
      table.append(cell);
    });
    return;
  }
  table.className = "table";
  table.style.gridTemplateColumns = `max-content repeat(${columns.length}, minmax(90px, 320px))`;
  // Combinations that come to the same settings are one cell: not every place has one.
  const cells = new Map(labels.map((_, number) => [`${down[number]}\n${along[number]}`, number]));
  table.append(element("div", ""), ...columns.map((text) => element("div", "heading", text)));
  rows.forEach((row) => {
    table.append(element("div", "heading row", row));
    columns.forEach((column) => {
      const number = cells.get(`${row}\n${column}`);
      table.append(number === undefined ? element("div", "") : figure(number, `${row}\n${column}`));
    });
  });
}

function show(number, kind, address, text, loss) {
  const { made, image, text: caption } = figures[number];
  if (made.className !== kind) made.className = kind;
  if (image.getAttribute("src") !== address) image.src = address;
  image.hidden = false;
  caption.textContent = text;
  figures[number].loss = loss;
}

function draw(state) {
  seen += state.finished.length;
  for (const { cell, loss } of state.finished) {
    show(cell, "finished", `picture/${cell}`, `loss ${short(loss)}`, loss);
    figures[cell].link.href = `whole/${cell}`;
    figures[cell].link.target = "_blank";
  }
  let part = 0;
  for (const { cell, step, steps, loss } of state.running) {
    part += step / steps;
    show(cell, "running", `picture/${cell}?step=${step}`, `step ${step}/${steps}, loss ${short(loss)}`, loss);
  }
  at("bar").value = (state.done + part) / state.total;
  const words = [`cells ${state.done}/${state.total}`];
  if (state.running.length) words.push(`${state.running.length} running`);
  say(words, state);
  // Images out of sight too, before the server ends.
  if (state.message) figures.forEach(({ image }) => { image.loading = "eager"; });
  crown();
}

// The least loss so far of each objective is outlined, where several cells have that objective:
// losses of different objectives do not compare.
function crown() {
  const best = new Map();
  figures.forEach((cell, number) => {
    cell.made.removeAttribute("data-best");
    const objective = objectives[number];
    const several = objectives.indexOf(objective) !== objectives.lastIndexOf(objective);
    if (cell.loss === null || !several) return;
    if (!best.has(objective) || cell.loss < best.get(objective).loss) best.set(objective, cell);
  });
  for (const cell of best.values()) cell.made.setAttribute("data-best", "best so far");
}

(async () => {
  lay(await (await fetch("cells")).json());
  watch(draw, () => seen);
})();
