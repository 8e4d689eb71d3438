"use strict";
/* Tables that can be ordered, and numbers as the program writes them. */
globalThis.tables = (() => {
  /** As toFixed, but of two numbers just as near the even one, as in Python. */
  function fixed(value, places) {
    const exact = Math.abs(value).toFixed(Math.min(100, places + 30)).split(".")[1];
    const up = value.toFixed(places);
    const isTie = /^50*$/.test(exact.slice(places));
    return isTie && Number(up.at(-1)) % 2 ? (value - Math.sign(value) * 0.5 * 10 ** -places).toFixed(places) : up;
  }

  /** Three significant digits, no exponent, thousands apart: as `significant` in charts/words.py. */
  function significant(value, digits = 3) {
    if (value === null || value === undefined) return "n/a";
    if (value === 0) return "0";
    const rounded = Math.abs(Number(value.toExponential(digits - 1)));
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(rounded)));
    const [whole, part] = fixed(value, places).split(".");
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
    return part ? `${grouped}.${part}` : grouped;
  }

  const shown = (value) => {
    if (value === null || value === undefined) return "n/a";
    if (typeof value === "number") return Number.isInteger(value) ? value.toLocaleString("en-US") : significant(value, 5);
    return String(value);
  };

  const written = (text) => {
    const number = Number(text.replaceAll(",", ""));
    return text.trim() === "" || Number.isNaN(number) ? null : number;
  };

  function valueOf(cell, isNumber) {
    if (!cell) return null;
    if (isNumber) return written(cell.dataset.value ?? cell.textContent);
    return cell.dataset.value ?? cell.textContent.trim();
  }

  /** What was not measured stands last, whichever way the rest is ordered. */
  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true }));
  }

  function order(table, column, isDown) {
    const header = table.tHead.rows[table.tHead.rows.length - 1].cells;
    const isNumber = header[column].classList.contains("num");
    const sign = isDown ? -1 : 1;
    for (const body of table.tBodies) {
      const rows = [...body.rows].map((row) => [valueOf(row.cells[column], isNumber), row]);
      rows.sort((a, b) => compare(a[0], b[0], sign));
      body.append(...rows.map(([, row]) => row));
    }
    for (const [index, cell] of [...header].entries()) {
      if (index === column) cell.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  function sortBy(head) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "sort";
    made.append(...head.childNodes);
    made.addEventListener("click", () =>
      order(head.closest("table"), head.cellIndex, head.getAttribute("aria-sort") === "ascending"));
    head.append(made);
  }

  /** A heading that is an input itself orders nothing. */
  const sortable = (table) =>
    [...table.tHead.rows[table.tHead.rows.length - 1].cells].filter((cell) => !cell.querySelector("input")).forEach(sortBy);

  /** After values changed under it: the same column, the same way. */
  function reorder(table) {
    const cell = table.tHead?.querySelector("[aria-sort]");
    if (cell) order(table, cell.cellIndex, cell.getAttribute("aria-sort") === "descending");
  }

  /** Where a table is wider than its frame, what names a row stays in sight: its columns up to the first of
      words, or that one alone where they would take half of the frame. */
  function pin(table) {
    const frame = table.closest(".table");
    const heads = [...table.tHead.rows[0].cells];
    const last = heads.findIndex((head) => !head.classList.contains("num"));
    table.querySelectorAll(".pinned").forEach((cell) => cell.classList.remove("pinned"));
    if (last < 0 || frame.scrollWidth <= frame.clientWidth) return;
    const widths = heads.slice(0, last + 1).map((head) => head.getBoundingClientRect().width);
    const isRoom = widths.reduce((sum, width) => sum + width, 0) < frame.clientWidth / 2;
    const starts = widths.map((_, at) => widths.slice(0, at).reduce((sum, width) => sum + width, 0));
    const pinned = heads.slice(0, last + 1).map((_, at) => at).filter((at) => isRoom || at === last);
    for (const row of table.rows) {
      for (const at of pinned) {
        row.cells[at].classList.add("pinned");
        row.cells[at].style.left = `${isRoom ? starts[at] : 0}px`;
      }
    }
  }

  /** Bring a cell into its table's frame. */
  function show(cell) {
    const frame = cell.closest(".table");
    const hidden = cell.offsetLeft + cell.offsetWidth - frame.scrollLeft - frame.clientWidth;
    if (hidden > 0) frame.scrollBy({ left: hidden + frame.clientWidth / 3 });
  }

  /* -- files ----------------------------------------------------------------------------------- */

  const TRUTH = { true: "True", false: "False" };

  /** One line of CSV, as Python's csv module writes it. */
  const line = (cells) => cells.map((cell) => {
    const text = TRUTH[cell] ?? String(cell ?? "");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(",");

  const csv = (names, rows) => [names, ...rows].map((cells) => `${line(cells)}\n`).join("");

  function save(name, content, type) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function button(text, label, act) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    made.addEventListener("click", act);
    return made;
  }

  /* -- all columns of a table: <script id="data-ID"> {fields, rows, keys?} ---------------------- */

  let revise = (key, name, value) => value; // page.js puts the money in

  function dataOf(table) {
    const island = document.getElementById(table.id.replace(/^table-/, "data-"));
    return island && JSON.parse(island.textContent);
  }

  function spreadOf(read, name) {
    const [value, low, high] = [name, `${name}_low`, `${name}_high`].map((field) => read(field));
    if (typeof low !== "number" || typeof high !== "number" || !value) return "";
    const half = ((high - low) / 2 / value) * 100;
    return `±${half >= 1 ? half.toFixed(0) : half.toFixed(1)}%`;
  }

  /** What a cell says: the value, and half its interval in lighter ink. */
  function write(cell, value, spread, isWhole = false) {
    cell.replaceChildren(typeof value === "number" && !isWhole ? significant(value) : shown(value));
    cell.classList.toggle("na", value === null || value === undefined);
    if (value === null || value === undefined) delete cell.dataset.value;
    else cell.dataset.value = value;
    if (!spread) return;
    const lighter = document.createElement("span");
    lighter.className = "pm";
    lighter.textContent = spread;
    cell.append(" ", lighter);
  }

  function addColumn(table, rows, data, name) {
    const at = data.fields.indexOf(name);
    const isEach = (test) => data.rows.every((row) => row[at] === null || test(row[at]));
    const [isNumber, isWhole] = [isEach((value) => typeof value === "number"), isEach(Number.isInteger)];
    const head = document.createElement("th");
    head.scope = "col";
    head.className = isNumber ? "num" : "text";
    head.dataset.added = name;
    head.textContent = name.replaceAll("_", " ");
    table.tHead.rows[0].append(head);
    sortBy(head);
    rows.forEach((row, place) => {
      const cell = row.insertCell();
      const read = (field) => data.rows[place][data.fields.indexOf(field)];
      cell.className = isNumber ? "num" : "text";
      cell.dataset.added = cell.dataset.money = name;
      write(cell, read(name), spreadOf(read, name), isWhole);
    });
    document.dispatchEvent(new Event("columns"));
  }

  const dropColumn = (table, name) => table.querySelectorAll(`[data-added="${name}"]`).forEach((cell) => cell.remove());

  function chooser(table, rows, data) {
    const list = document.createElement("div");
    const held = new Set([...table.tHead.querySelectorAll("[data-key]")].map((head) => head.dataset.key));
    const isEnd = (name) => /_(low|high)$/.test(name) && data.fields.includes(name.replace(/_(low|high)$/, ""));
    const choices = data.fields.filter((name) => !held.has(name) && !isEnd(name));
    list.className = "columns";
    list.append(...choices.map((name) => {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.addEventListener("change", () => box.checked ? addColumn(table, rows, data, name) : dropColumn(table, name));
      label.append(box, ` ${name}`);
      return label;
    }));
    return list;
  }

  function equip(block) {
    const table = block.querySelector("table");
    if (!document.getElementById(table.id.replace(/^table-/, "data-"))) return;
    const rows = [...table.tBodies[0].rows];
    const place = document.createElement("div");
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    place.className = "table-tools";
    summary.textContent = "More columns";
    details.append(summary);
    details.addEventListener("toggle", () => details.childElementCount > 1 || details.append(chooser(table, rows, dataOf(table))));
    place.append(details, button("CSV", `Download “${table.caption.textContent.trim()}” as CSV, all columns`, () => {
      const data = dataOf(table);
      const keys = data.keys ?? rows.map((row) => row.dataset.row);
      const full = data.rows.map((row, at) => row.map((value, field) => revise(keys[at], data.fields[field], value)));
      save(`${table.id.replace(/^table-/, "")}.csv`, csv(data.fields, full), "text/csv");
    }));
    block.querySelector(".table").after(place);
  }

  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll(".table-block").forEach(equip);
  const all = [...document.querySelectorAll(".section .table > table.data")];
  let pending = 0;
  all.forEach(pin);
  window.addEventListener("resize", () => {
    clearTimeout(pending);
    pending = setTimeout(() => all.forEach(pin), 120);
  });
  return { significant, shown, show, sortable, reorder, csv, save, button, write, spreadOf, reviseWith: (how) => { revise = how; } };
})();
