// Draws the charts and, when they are opened, the tables. All text goes in as text, never as HTML.
(function () {
  "use strict";
  const root = document.documentElement;
  const views = JSON.parse(document.getElementById("data").textContent);
  const LONG = 96;       // characters of a cell before it is folded
  const ROWS = 500;      // rows of a table shown before the reader asks for all
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
      margin: { l: 60, r: 20, t: 16, b: 44 },
      ...layout,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, ...layout.legend } } };
  }

  const config = { responsive: true, displaylogo: false, modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]] };

  function draw(element, chart) {
    const { data, layout } = figure(chart);
    return Plotly.newPlot(element, data, layout, config).then(() => drawn.push([element, chart]));
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
      td.textContent = held.toLocaleString("en", { maximumFractionDigits: column.digits });
    } else if (held.length > LONG) {
      const fold = make("details");
      fold.append(make("summary", held.slice(0, LONG) + " … (" + held.length.toLocaleString("en") + " characters)"), make("span", held));
      td.append(fold);
    } else td.textContent = held;
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
    rows(body, table, 0, Math.min(ROWS, table.rows));
    element.append(make("thead"), body);
    element.tHead.append(head);
    scroll.append(element);
    const save = make("button", "Save as CSV");
    save.type = "button";
    save.addEventListener("click", () => download(table));
    tools.append(save);
    if (table.rows > ROWS) {
      const all = make("button", "Show all " + table.rows.toLocaleString("en") + " rows");
      all.type = "button";
      all.addEventListener("click", () => { rows(body, table, ROWS, table.rows); all.remove(); });
      tools.append(all);
    }
    if (table.left_out) tools.append(make("span", table.left_out));
    holder.append(scroll, tools);
  }

  for (const holder of document.querySelectorAll("details[data-table]")) {
    const [view, at] = holder.dataset.table.split(" ").map(Number);
    holder.addEventListener("toggle", () => fill(holder, views[view].tables[at]), { once: true });
  }

  const later = () => new Promise((next) => setTimeout(next, 0));

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
