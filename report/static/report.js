// Draws the charts and, when they are opened, the tables. All text goes in as text, never as HTML.
(function () {
  "use strict";
  const root = document.documentElement;
  const views = JSON.parse(document.getElementById("data").textContent);
  const LONG = 96;       // characters of a cell before it is folded
  const SHORT = 24;      // characters of a cell that is not broken into lines
  const ROWS = 500;      // rows of a table shown before the reader asks for all
  const LIST = 100;      // the same of a table that is open from the start
  const drawn = [];

  const color = (name) => getComputedStyle(root).getPropertyValue("--" + name).trim();

  // Figures name colors by role, "@wait"; this gives them the theme's.
  function themed(value, key) {
    if (Array.isArray(value)) return key === "data" || key === "shapes" || key === "annotations"
      ? value.map((item) => themed(item, "")) : value;
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, k)]));
    }
    if (key === "colorscale") return [0, 1, 2, 3, 4].map((i) => [i / 4, color("heat" + i)]);
    return /color$/i.test(key) && typeof value === "string" && value[0] === "@" ? color(value.slice(1)) : value;
  }

  function figure(chart) {
    const axis = { gridcolor: color("grid"), linecolor: color("line"), zeroline: false, automargin: true,
      ticks: "outside", ticklen: 5, tickcolor: "rgba(0,0,0,0)" };
    const { data, layout } = themed({ data: chart.data, layout: chart.layout }, "");
    for (const name of Object.keys(layout)) {
      if (/^[xy]axis/.test(name)) layout[name] = { ...axis, ...layout[name] };
    }
    return { data, layout: {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "keep", height: chart.height,
      font: { color: color("ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
      hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink") }, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("soft"), activecolor: color("accent") },
      margin: { l: 60, r: 20, t: 30, b: 44 },  // the buttons are above the plot
      ...layout,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, ...layout.legend } } };
  }

  const config = { responsive: true, displaylogo: false, modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };

  function draw(element, chart) {
    const { data, layout } = figure(chart);
    return Plotly.newPlot(element, data, layout, config).then(() => {
      drawn.push([element, chart]);
      keys(element);
    });
  }

  // What the mouse does by dragging: + and - zoom, the arrows move, 0 shows all again.
  function keys(element) {
    const axes = Object.keys(element._fullLayout).filter((name) => /^[xy]axis\d*$/.test(name));
    const ranges = () => Object.fromEntries(axes.map((name) => [name + ".range", [...element._fullLayout[name].range]]));
    const home = ranges();
    const step = { ArrowLeft: ["x", -1], ArrowRight: ["x", 1], ArrowUp: ["y", 1], ArrowDown: ["y", -1] };
    element.tabIndex = 0;
    element.addEventListener("keydown", (event) => {
      const zoom = { "+": 0.7, "=": 0.7, "-": 1 / 0.7 }[event.key], move = step[event.key];
      if (event.ctrlKey || event.metaKey || event.altKey || !(zoom || move || event.key === "0")) return;
      event.preventDefault();
      const next = event.key === "0" ? home : ranges();
      for (const name of event.key === "0" ? [] : Object.keys(next)) {
        const [from, to] = next[name], half = (to - from) / 2;
        if (zoom) next[name] = [from + half * (1 - zoom), to - half * (1 - zoom)];
        else if (name[0] === move[0]) next[name] = [from, to].map((end) => end + 0.3 * half * move[1]);
      }
      Plotly.relayout(element, next);
    });
  }

  function redraw() {
    for (const [element, chart] of drawn) {
      const { data, layout } = figure(chart);
      Plotly.react(element, data, layout, config);
    }
    label();
  }

  const button = document.getElementById("theme");
  function label() {
    const dark = root.dataset.theme === "dark";
    button.textContent = dark ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(dark));
    button.setAttribute("aria-label", dark ? "Use light colors" : "Use dark colors");
  }
  button.addEventListener("click", () => {
    root.dataset.chosen = "yes";
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    redraw();
  });
  root.addEventListener("theme", redraw);

  function make(tag, text, name) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  // A text column stores each different text once.
  const value = (column, row) => (column.index ? column.unique[column.index[row]] : column.values[row]);

  function cell(column, row) {
    const held = value(column, row);
    const td = make("td", undefined, column.index ? "" : "number");
    if (held === null || held === undefined) td.textContent = "–";
    else if (typeof held === "number") {
      const digits = held && Math.abs(held) < 0.001 ? 6 : column.digits;
      td.textContent = held.toLocaleString("en", { maximumFractionDigits: digits, useGrouping: column.name !== "GPU" });
    } else if (held.length > LONG) {
      const fold = make("details");
      fold.append(make("summary", held.slice(0, LONG) + " … (" + held.length.toLocaleString("en") + " characters)"), make("span", held));
      td.append(fold);
    } else {
      td.textContent = held;
      if (held.length <= SHORT) td.className += " whole";
    }
    return td;
  }

  function rows(body, table, from, to) {
    for (let row = from; row < to; row++) {
      const tr = make("tr");
      for (const column of table.columns) tr.append(cell(column, row));
      body.append(tr);
    }
  }

  function csv(table) {
    // A spreadsheet takes a text that starts with one of these for a formula.
    const quote = (text) => '"' + String(text).replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""') + '"';
    const lines = [table.columns.map((column) => quote(column.name)).join(",")];
    for (let row = 0; row < table.rows; row++) {
      lines.push(table.columns.map((column) => {
        const held = value(column, row);
        return held === null ? "" : typeof held === "number" ? held : quote(held);
      }).join(","));
    }
    return lines.join("\r\n") + "\r\n";
  }

  function download(table) {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv" }));
    link.download = table.title.replace(/[^A-Za-z0-9]+/g, "-").toLowerCase() + ".csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  function fill(holder, table) {
    const scroll = make("div", undefined, "scroll");
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", table.title);
    const element = make("table"), head = make("tr"), body = make("tbody"), tools = make("div", undefined, "tools");
    for (const column of table.columns) {
      const th = make("th", column.name, column.index ? "" : "number");
      th.scope = "col";
      head.append(th);
    }
    const shown = Math.min(holder.hasAttribute("data-list") ? LIST : ROWS, table.rows);
    rows(body, table, 0, shown);
    element.append(make("thead"), body);
    element.tHead.append(head);
    scroll.append(element);
    const save = make("button", "Save as CSV");
    save.type = "button";
    save.addEventListener("click", () => download(table));
    tools.append(save);
    if (table.rows > shown) {
      const all = make("button", "Show all " + table.rows.toLocaleString("en") + " rows");
      all.type = "button";
      all.addEventListener("click", () => { rows(body, table, shown, table.rows); all.remove(); });
      tools.append(all);
    }
    if (table.left_out) tools.append(make("span", table.left_out));
    holder.append(scroll, tools);
  }

  const later = () => new Promise((next) => setTimeout(next, 0));

  for (const holder of document.querySelectorAll("details[data-table]")) {
    const [view, at] = holder.dataset.table.split(" ").map(Number);
    const open = () => { if (holder.children.length < 2) fill(holder, views[view].tables[at]); };
    if (holder.open) later().then(open);
    else holder.addEventListener("toggle", open, { once: true });
  }

  // The text is shown first: the plotting library, by far the largest part of the page, is run after the first paint.
  async function library() {
    await new Promise((next) => requestAnimationFrame(() => setTimeout(next, 0)));
    const script = make("script", document.getElementById("plotly").textContent);
    document.body.append(script);
  }

  // Charts are drawn one by one, those in view first; the page answers between two of them.
  async function start() {
    label();
    const waiting = [...document.querySelectorAll("[data-chart]")];
    const seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const at = isIntersecting ? waiting.indexOf(target) : -1;
        if (at >= 0) waiting.unshift(...waiting.splice(at, 1));
      }
    });
    waiting.forEach((element) => seen.observe(element));
    await library();
    while (waiting.length) {
      const element = waiting.shift();
      const [view, at] = element.dataset.chart.split(" ").map(Number);
      await draw(element, views[view].charts[at]);
      await later();
    }
    seen.disconnect();
    root.dataset.ready = "yes";
  }
  start();
})();
