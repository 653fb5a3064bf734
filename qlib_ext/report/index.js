// Sorts, filters and groups the table of runs. Without scripts the table stands as it was written.
"use strict";
(() => {
  const place = document.querySelector(".sortable");
  const table = place.querySelector("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent);
  const isNumber = heads.map((head) => head.classList.contains("number"));
  const rows = [...body.rows].map((row) => {
    const texts = [...row.cells].map((cell) => cell.textContent);
    return { row, texts, all: texts.join("\n").toLowerCase() };
  });
  const MOST_VALUES = 60; // of a column that is offered as a filter
  const CHOSEN = names.map((_, k) => k).filter((k) => {
    const values = new Set(rows.map((each) => each.texts[k])).size;
    return k > 0 && !isNumber[k] && names[k] !== "Started" && values > 1 && values <= MOST_VALUES;
  });
  const MOST_ROWS = 200; // that are laid out at once: a browser takes a second and more for thousands
  const state = { column: -1, down: true, words: [], only: new Map(), group: -1, all: false };

  function figure(text) {
    return text === "\u2013" ? NaN : parseFloat(text.replace("\u2212", "-").replace(/[,%+]/g, ""));
  }

  // -- order ---------------------------------------------------------------------------------------------------

  const words = new Intl.Collator(undefined, { numeric: true });
  function compare(a, b) {
    const k = state.column;
    const sign = state.down ? -1 : 1;
    if (!isNumber[k]) return sign * words.compare(a.texts[k], b.texts[k]);
    const [x, y] = [figure(a.texts[k]), figure(b.texts[k])];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // what has none comes last, always
    return sign * (x - y);
  }

  heads.forEach((head, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = names[k];
    head.replaceChildren(button);
    button.addEventListener("click", () => order(k, state.column === k ? !state.down : isNumber[k]));
  });
  function order(column, down) {
    state.column = column;
    state.down = down;
    sorting.value = `${column} ${down}`;
    show();
  }

  // -- controls ------------------------------------------------------------------------------------------------

  const controls = document.createElement("div");
  controls.className = "controls";
  function control(name, made) {
    const label = document.createElement("label");
    label.append(`${name} `, made);
    controls.append(label);
    return made;
  }
  function choice(name, first, options) {
    const made = document.createElement("select");
    [["", first], ...options].forEach(([value, text]) => made.add(new Option(text, value)));
    return control(name, made);
  }

  const search = control("Find", document.createElement("input"));
  search.type = "search";
  search.placeholder = "words, all of which a row has";
  search.addEventListener("input", () => {
    state.words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    show();
  });
  // for a narrow screen, where rows are cards and no heading is seen
  const sorting = choice("Sort by", "newest", names.flatMap((name, k) => [
    [`${k} ${isNumber[k]}`, name], [`${k} ${!isNumber[k]}`, `${name}, ${isNumber[k] ? "lowest" : "last"} first`],
  ]));
  sorting.addEventListener("change", () => {
    const [column, down] = sorting.value === "" ? [-1, "true"] : sorting.value.split(" ");
    order(Number(column), down === "true");
  });
  const grouping = choice("Group by", "nothing", CHOSEN.map((k) => [String(k), names[k]]));
  grouping.addEventListener("change", () => {
    state.group = grouping.value === "" ? -1 : Number(grouping.value);
    show();
  });
  CHOSEN.forEach((k) => {
    const values = [...new Set(rows.map((each) => each.texts[k]))].sort(words.compare);
    // by number: a value may be any text, the empty one too
    const made = choice(names[k], "all", values.map((value, n) => [String(n), value]));
    made.addEventListener("change", () => {
      if (made.value === "") state.only.delete(k);
      else state.only.set(k, values[Number(made.value)]);
      show();
    });
  });
  const told = document.createElement("p");
  told.className = "told";
  told.setAttribute("role", "status");
  place.prepend(controls, told);
  const more = document.createElement("button");
  more.type = "button";
  more.className = "more";
  more.addEventListener("click", () => {
    state.all = true;
    show();
  });
  place.append(more);
  addEventListener("beforeprint", () => more.click());

  // -- the table -----------------------------------------------------------------------------------------------

  function mean(group, k) {
    const values = group.map((each) => figure(each.texts[k])).filter((value) => !Number.isNaN(value));
    if (!values.length) return "\u2013";
    const sample = group.map((each) => each.texts[k]).find((text) => text !== "\u2013");
    const digits = (sample.split(".")[1] || "").replace(/\D/g, "").length;
    const found = values.reduce((sum, value) => sum + value, 0) / values.length;
    return found.toFixed(digits).replace("-", "\u2212") + (sample.endsWith("%") ? "%" : "");
  }

  function heading(value, group) {
    const row = document.createElement("tr");
    row.className = "group";
    names.forEach((name, k) => {
      const cell = document.createElement(k ? "td" : "th");
      cell.textContent = k ? (isNumber[k] ? mean(group, k) : "") : `${value} (${count(group.length)})`;
      if (isNumber[k]) cell.className = "number";
      if (k) cell.dataset.label = `mean ${name}`;
      else cell.scope = "row";
      row.append(cell);
    });
    return row;
  }

  function count(number) {
    return `${number.toLocaleString("en")} ${number === 1 ? "run" : "runs"}`;
  }

  function show() {
    const kept = rows.filter((each) => state.words.every((word) => each.all.includes(word))
      && [...state.only].every(([k, value]) => each.texts[k] === value));
    if (state.column >= 0) kept.sort(compare); // else they are as they were written, the newest first
    heads.forEach((head, k) => {
      if (k === state.column) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const groups = new Map();
    kept.forEach((each) => {
      const value = state.group < 0 ? "" : each.texts[state.group];
      if (!groups.has(value)) groups.set(value, []);
      groups.get(value).push(each);
    });
    const shown = [];
    groups.forEach((group, value) => {
      if (state.group >= 0) shown.push(heading(value, group));
      group.forEach((each) => shown.push(each.row));
    });
    const most = state.all ? Infinity : MOST_ROWS;
    body.replaceChildren(...shown.slice(0, most));
    more.hidden = shown.length <= most;
    more.textContent = `Show all ${count(kept.length)}`;
    told.textContent = kept.length === rows.length ? count(rows.length) : `${kept.length.toLocaleString("en")} of ${count(rows.length)}`;
  }
  show();
})();
