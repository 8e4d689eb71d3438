"use strict";
/* The rest of the page: its theme, where the reader is, and the money under other terms. */
(() => {
  const root = document.documentElement;

  /* -- light and dark -------------------------------------------------------------------------- */

  const wish = window.matchMedia("(prefers-color-scheme: dark)");
  const button = document.getElementById("theme");
  let chosen = null;

  /** A page opened from disk may be denied storage. */
  const stored = (access) => {
    try {
      return access(window.localStorage);
    } catch {
      return null;
    }
  };

  function paint() {
    const dark = chosen ? chosen === "dark" : wish.matches;
    root.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${dark ? "light" : "dark"} theme`);
    globalThis.charts.refresh();
  }

  function chooseTheme() {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    stored((storage) => storage.setItem("profile-theme", chosen));
    paint();
  }

  /* -- where the reader is --------------------------------------------------------------------- */

  function followContents() {
    const links = new Map(
      [...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
    const sections = [...document.querySelectorAll("main [id]")].filter((section) => links.has(section.id));
    if (!sections.length) return;
    const strip = document.querySelector(".contents ol");
    let current = null;
    const mark = () => {
      const line = window.innerHeight / 3;
      const passed = sections.filter((section) => section.getBoundingClientRect().top <= line);
      const link = links.get((passed.at(-1) ?? sections[0]).id);
      if (link === current) return;
      current?.removeAttribute("aria-current");
      link.setAttribute("aria-current", "true");
      current = link;
      if (strip.scrollWidth > strip.clientWidth) strip.scrollTo({ left: link.offsetLeft - strip.offsetLeft - 16 });
    };
    let isQueued = false;
    document.addEventListener("scroll", () => {
      if (isQueued) return;
      isQueued = true;
      requestAnimationFrame(() => {
        isQueued = false;
        mark();
      });
    }, { passive: true });
    mark();
  }

  /* -- money under other terms ----------------------------------------------------------------- */

  const form = document.getElementById("terms");

  function valueOf(input) {
    const value = input.value === "" ? null : input.valueAsNumber; // emptied: each row's own
    return input.name === "blend" ? [value, 1 - value] : value;
  }

  /** Of the inputs that are not as given, their values. */
  function entered() {
    const changed = [...form.querySelectorAll("input[name]")].filter((input) => input.value !== input.defaultValue);
    return Object.fromEntries(changed.map((input) => [input.name, valueOf(input)]));
  }

  function followTerms() {
    const money = JSON.parse(document.getElementById("money").textContent);
    const state = form.querySelector(".terms-state");
    const given = new Map(); // cell → what it was before anything was entered

    function rewrite(values) {
      for (const cell of document.querySelectorAll("[data-money]")) {
        const row = values?.[cell.closest("tr").dataset.row];
        const name = cell.dataset.money;
        if (!given.has(cell)) given.set(cell, [[...cell.childNodes], cell.dataset.value, cell.className]);
        if (row && name in row) {
          globalThis.tables.write(cell, row[name], globalThis.tables.spreadOf((field) => row[field], name));
          cell.classList.remove("best");
          cell.classList.add("is-recomputed");
        } else {
          const [nodes, value, names] = given.get(cell);
          cell.replaceChildren(...nodes);
          cell.className = names;
          if (value === undefined) delete cell.dataset.value;
          else cell.dataset.value = value;
        }
      }
      document.querySelectorAll("table.sortable").forEach(globalThis.tables.reorder);
      const first = document.querySelector("td.is-recomputed");
      if (first) globalThis.tables.show(first);
    }

    function apply() {
      const inputs = entered();
      const wrong = [...form.querySelectorAll("input")].some((input) => input.validity.badInput)
        ? "Not a number"
        : globalThis.money.problem(money, inputs);
      const isChanged = Object.keys(inputs).length > 0;
      state.classList.toggle("is-wrong", Boolean(wrong));
      state.classList.toggle("is-changed", isChanged);
      if (wrong) {
        state.textContent = `${wrong}. What is shown is as it was before.`;
        return;
      }
      const values = isChanged ? globalThis.money.recompute(money, inputs) : null;
      globalThis.tables.reviseWith((key, name, value) => values?.[key] && name in values[key] ? values[key][name] : value);
      rewrite(values);
      globalThis.charts.computeWith((chart) => values ? globalThis.money.recomputeRows(chart, values) : chart.rows);
      state.textContent = isChanged
        ? "Costs in tables and charts are at the terms entered here; sentences, stars and verdicts are as given."
        : "";
    }

    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    document.addEventListener("columns", apply);
    if (Object.keys(entered()).length) apply(); // a browser may keep what was entered over a reload
  }

  stored((storage) => { chosen = storage.getItem("profile-theme"); });
  button.hidden = false;
  button.addEventListener("click", chooseTheme);
  wish.addEventListener("change", paint);
  paint();
  followContents();
  if (form) followTerms();
  root.dataset.ready = "true";
})();
