"use strict";
/* Draws the page's figures from the data inside the page, when they come near the screen.

   A chart is JSON in <script id="chart-ID">: rows, columns, a Vega-Lite spec without data, colours or width;
   <script id="themes"> has the colours.  vegaEmbed waits for nothing but promises that are kept already, so
   what is begun before printing is there in print. */
globalThis.charts = (() => {
  const PRINT_WIDTH = 780; // shrunk to the sheet, so that two figures fit on it
  const FILE_WIDTH = 760;
  const PNG_SCALE = 2;
  const LEGEND_PX = 240, KEY_PX = 40, AXIS_PX = 60; // as in profiler.charts.theme
  const PAPER = "#ffffff";
  const parsed = new Map(); // id → chart
  const drawn = new Map(); // figure → {theme, width, view}
  let compute = (chart) => chart.rows; // page.js puts the money in

  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const themes = figures.length ? read("themes") : {};
  const theme = () => document.documentElement.dataset.theme === "dark" ? "dark" : "light";

  function chartOf(figure) {
    const id = figure.dataset.chart;
    if (!parsed.has(id)) {
      const chart = read(`chart-${id}`);
      const named = (row) => Object.fromEntries(chart.fields.map((name, at) => [name, row[at]]));
      parsed.set(id, { ...chart, rows: chart.rows.map(named) });
    }
    return parsed.get(id);
  }

  /** The theme with a legend that has room: profiler.charts.theme.config. */
  function themed(name, width) {
    const { legend, ...rest } = themes[name];
    const columns = Math.max(1, Math.floor(width / LEGEND_PX));
    return { ...rest, legend: { ...legend, columns, labelLimit: Math.floor((width - AXIS_PX) / columns) - KEY_PX } };
  }

  function embed(element, chart, name, width, more = {}) {
    const spec = {
      ...chart.spec,
      ...more,
      $schema: "https://vega.github.io/schema/vega-lite/v6.json",
      data: { name: "table", values: compute(chart) },
      width,
      height: chart.height,
      config: themed(name, width),
    };
    return window.vegaEmbed(element, spec, {
      ast: true, actions: false, defaultStyle: false, renderer: "svg", tooltip: pointed, // no eval, no style element
      logLevel: 1, // errors: that a legend of 200 models is cut is no news for a reader
    });
  }

  async function draw(figure, name = theme(), fixed = 0) {
    const plot = figure.querySelector(".plot");
    const width = fixed || Math.floor(plot.clientWidth);
    const old = drawn.get(figure);
    if (width < 40 || (old && old.theme === name && old.width === width)) return;
    const next = { theme: name, width, view: null };
    drawn.set(figure, next);
    const canvas = document.createElement("div");
    const { view } = await embed(canvas, chartOf(figure), name, width);
    if (drawn.get(figure) !== next) {
      view.finalize();
      return;
    }
    next.view = view;
    tip.remove();
    plot.replaceChildren(canvas);
    plot.style.minHeight = "";
    figure.dataset.drawn = name;
    old?.view?.finalize();
  }

  /* -- what the pointer is on ------------------------------------------------------------------ */

  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("aria-hidden", "true"); // the same values are in the figure's table

  function pointed(handler, event, item, value) {
    if (value === null || value === undefined || value === "") {
      tip.remove();
      return;
    }
    const entries = typeof value === "object" ? Object.entries(value) : [["", value]];
    tip.replaceChildren(...entries.map(([label, text]) => {
      const line = document.createElement("div");
      const name = document.createElement("span");
      const said = document.createElement("b");
      name.textContent = label;
      said.textContent = String(text);
      line.append(name, said);
      return line;
    }));
    document.body.append(tip);
    const gap = 14;
    const right = event.clientX + gap + tip.offsetWidth > document.documentElement.clientWidth;
    const below = event.clientY + gap + tip.offsetHeight <= window.innerHeight;
    const left = right ? event.clientX - gap - tip.offsetWidth : event.clientX + gap;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, below ? event.clientY + gap : event.clientY - gap - tip.offsetHeight)}px`;
  }

  /* -- to take away ---------------------------------------------------------------------------- */

  const heading = (column) => column.unit ? `${column.label} (${column.unit})` : column.label;

  const csv = (chart) => globalThis.tables.csv(
    chart.columns.map((column) => column.name),
    compute(chart).map((row) => chart.columns.map((column) => row[column.name])),
  );

  /** Files look the same whatever the screen: light, opaque, of one width. */
  async function filed(chart, make) {
    const { view } = await embed(document.createElement("div"), chart, "light", FILE_WIDTH, { background: PAPER, title: chart.title });
    const made = await make(view);
    view.finalize();
    return made;
  }

  /** With its words inside, for who cannot see it. */
  async function svg(chart) {
    const drawing = new DOMParser().parseFromString(await filed(chart, (view) => view.toSVG()), "image/svg+xml");
    for (const [tag, text] of [["desc", chart.summary], ["title", chart.title]]) {
      const element = drawing.createElementNS("http://www.w3.org/2000/svg", tag);
      element.textContent = text;
      drawing.documentElement.prepend(element);
    }
    return new XMLSerializer().serializeToString(drawing);
  }

  async function png(chart) {
    const canvas = await filed(chart, (view) => view.toCanvas(PNG_SCALE));
    return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  }

  const FILES = { svg: [svg, "image/svg+xml"], png: [png], csv: [csv, "text/csv"] };

  function tools(figure) {
    const place = figure.querySelector(".tools");
    const title = figure.querySelector("h4").textContent.trim();
    for (const [kind, [make, type]] of Object.entries(FILES)) {
      const name = kind.toUpperCase();
      place.append(globalThis.tables.button(name, `Download “${title}” as ${name}`, async () => {
        const chart = chartOf(figure);
        globalThis.tables.save(`${chart.id}.${kind}`, await make(chart), type);
      }));
    }
    place.hidden = false;
  }

  /* -- the same as a table --------------------------------------------------------------------- */

  const LONGEST_TABLE = 1000;

  function tabulate(figure) {
    const details = figure.querySelector("details.rows");
    const chart = chartOf(figure);
    const rows = compute(chart).slice(0, LONGEST_TABLE);
    const table = document.createElement("table");
    const isNumber = new Set(chart.columns.map((column) => column.name).filter(
      (name) => rows.every((row) => row[name] === null || row[name] === undefined || typeof row[name] === "number")));
    const cell = (tag, text, name) => {
      const element = document.createElement(tag);
      element.textContent = text;
      if (isNumber.has(name)) element.className = "num";
      return element;
    };
    table.className = "data";
    const head = table.createTHead().insertRow();
    for (const column of chart.columns) {
      const th = cell("th", heading(column), column.name);
      th.scope = "col";
      head.append(th);
    }
    const body = table.createTBody();
    for (const row of rows) {
      body.insertRow().append(...chart.columns.map((column) => cell("td", globalThis.tables.shown(row[column.name]), column.name)));
    }
    const frame = document.createElement("div");
    frame.className = "table";
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", `Data of “${chart.title}”`);
    frame.append(table);
    const more = chart.rows.length - rows.length;
    const rest = document.createElement("p");
    rest.className = "more";
    rest.textContent = more > 0 ? `${more.toLocaleString("en")} more rows are in the CSV file.` : "";
    details.replaceChildren(details.querySelector("summary"), frame, ...(more > 0 ? [rest] : []));
    globalThis.tables.sortable(table);
  }

  /* -- when ------------------------------------------------------------------------------------ */

  const near = new Set();
  let isPrinting = false; // meanwhile the page's width and theme are the paper's
  const refresh = () => isPrinting ? null : Promise.all([...near].map((figure) => draw(figure)));

  /** The rows come out otherwise than they did. */
  function computeWith(how) {
    compute = how;
    for (const figure of figures.filter((each) => chartOf(each).columns.some((column) => column.is_money))) {
      const known = drawn.get(figure);
      if (known) known.theme = null;
      if (figure.querySelector("details.rows[open]")) tabulate(figure);
    }
    return refresh();
  }

  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) near.add(target);
      else near.delete(target);
    }
    refresh();
  }, { rootMargin: "800px 0px" });

  for (const figure of figures) {
    const plot = figure.querySelector(".plot");
    const details = figure.querySelector("details.rows");
    plot.style.minHeight = `${Number(plot.dataset.height) + 80}px`; // so that nothing jumps when it is drawn
    details.addEventListener("toggle", () => details.open && tabulate(figure));
    tools(figure);
    watch.observe(figure);
  }
  let pending = 0;
  window.addEventListener("resize", () => {
    clearTimeout(pending);
    pending = setTimeout(refresh, 120);
  });
  const folds = [...document.querySelectorAll("details.fold")];
  let closed = [];
  window.addEventListener("beforeprint", () => {
    isPrinting = true;
    closed = folds.filter((fold) => !fold.open);
    for (const fold of closed) fold.open = true;
    for (const figure of figures) draw(figure, "light", PRINT_WIDTH);
  });
  window.addEventListener("afterprint", () => {
    isPrinting = false;
    for (const fold of closed) fold.open = false;
    refresh();
  });

  return { refresh, computeWith };
})();
