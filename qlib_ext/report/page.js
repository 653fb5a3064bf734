// Draws the charts of a page: each when it comes into view, all of them before printing.
"use strict";
(() => {
  const INK = "#22282f", QUIET = "#5d656d", GRID = "#e4e7ea";
  const PAPER = 680; // pixels: the width of a sheet of A4 between its margins
  const FONT = getComputedStyle(document.body).fontFamily;
  const charts = [...document.querySelectorAll("figure.chart")];
  if (!charts.length) return;

  // -- the library ---------------------------------------------------------------------------------------------

  function bytes(base64) {
    const text = atob(base64);
    const found = new Uint8Array(text.length);
    for (let k = 0; k < text.length; k += 1) found[k] = text.charCodeAt(k);
    return found;
  }

  async function unpack() {
    const packed = new Blob([bytes(document.getElementById("library").textContent)]);
    const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script); // runs at once: the page's policy knows its hash
    if (typeof Plotly === "undefined") throw new Error("the drawing library did not start");
  }

  let library = null;
  function ready() {
    library = library || unpack();
    return library;
  }

  // -- one chart -----------------------------------------------------------------------------------------------

  function shared(axis) {
    if (axis.text) return axis.text;
    if (axis.days === undefined) return axis;
    const days = new Int32Array(bytes(axis.days).buffer);
    return Array.from(days, (day) => new Date(day * 864e5).toISOString().slice(0, 10));
  }

  function styled(layout) {
    const axis = (given) => Object.assign({
      automargin: true, gridcolor: GRID, linecolor: QUIET, tickcolor: QUIET, zerolinecolor: "#b9bfc5",
      zerolinewidth: 1, ticks: "outside", ticklen: 4, exponentformat: "none", separatethousands: true,
    }, given, given.title ? { title: { text: given.title.text, font: { size: 12 }, standoff: 8 } } : {});
    const full = Object.assign({}, layout, {
      autosize: true, showlegend: false, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
      font: { family: FONT, size: 12, color: INK },
      margin: { l: 8, r: 12, t: 14, b: 8, pad: 0 },
      hoverlabel: { font: { family: FONT, size: 12, color: INK }, bgcolor: "#fff", bordercolor: QUIET, namelength: 40 },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
      // a finger that scrolls the page must not zoom the chart
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    });
    if (full.xaxis.type === "date" && full.xaxis.tickmode !== "array") {
      full.xaxis.tickformatstops = [
        { dtickrange: [null, "M1"], value: "%-d %b\n%Y" },
        { dtickrange: ["M1", "M12"], value: "%b\n%Y" },
        { dtickrange: ["M12", null], value: "%Y" },
      ];
    }
    return full;
  }

  function button(text, pressed) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.setAttribute("aria-pressed", String(pressed));
    return made;
  }

  function swatch(entry) {
    const made = document.createElement("span");
    made.className = "swatch " + (entry.line || "");
    if (entry.line) made.style.borderColor = entry.colour; else made.style.background = entry.colour;
    return made;
  }

  function named(entry) {
    const made = document.createElement("span");
    made.className = "only";
    made.append(swatch(entry), entry.name);
    return made;
  }

  // Switches for the series and for the axis: buttons of the page, so that keys and screen readers reach them.
  function tools(plot, chart, found) {
    const bar = document.createElement("div");
    bar.className = "tools";
    const switches = [];
    const show = (wanted) => {
      switches.forEach(({ made, entry }, k) => {
        if (String(wanted[k]) === made.getAttribute("aria-pressed")) return;
        made.setAttribute("aria-pressed", String(wanted[k]));
        Plotly.restyle(plot, { visible: wanted[k] }, entry.traces);
      });
    };
    const now = () => switches.map(({ made }) => made.getAttribute("aria-pressed") === "true");
    if (found.legend.length > 1) {
      const group = document.createElement("div");
      group.className = "legend";
      group.setAttribute("role", "group");
      group.setAttribute("aria-label", "Series");
      found.legend.forEach((entry, k) => {
        const made = button(entry.name, entry.shown);
        made.prepend(swatch(entry));
        made.title = "Show or hide; double click: only this one";
        made.addEventListener("click", () => show(now().map((on, other) => (other === k ? !on : on))));
        made.addEventListener("dblclick", () => {
          const alone = now().every((on, other) => on === (other === k));
          show(switches.map((_, other) => alone || other === k));
        });
        switches.push({ made, entry });
        group.append(made);
      });
      bar.append(group);
    }
    if (found.legend.length === 1 && found.lines.length) bar.append(named(found.legend[0]));
    found.lines.forEach((line) => bar.append(named(line)));
    if (found.log) {
      const made = button("Logarithmic axis", false);
      made.className = "log";
      made.addEventListener("click", () => {
        const wanted = made.getAttribute("aria-pressed") !== "true";
        made.setAttribute("aria-pressed", String(wanted));
        Plotly.relayout(plot, { "yaxis.type": wanted ? "log" : "linear", "yaxis.autorange": true });
      });
      bar.append(made);
    }
    if (bar.children.length) chart.insertBefore(bar, plot);
  }

  const drawn = new Map();
  function draw(chart) {
    if (drawn.has(chart)) return drawn.get(chart);
    const plot = chart.querySelector(".plot");
    const work = ready().then(() => {
      const found = JSON.parse(chart.querySelector("script").textContent);
      const axes = found.axes.map(shared);
      found.traces.forEach((trace) => ["x", "y"].forEach((name) => {
        if (trace[name] && trace[name].axis !== undefined) trace[name] = axes[trace[name].axis];
      }));
      tools(plot, chart, found);
      return Plotly.newPlot(plot, found.traces, styled(found.layout), {
        responsive: true, displaylogo: false, doubleClick: "reset",
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      });
    }).then(() => { chart.dataset.drawn = "yes"; });
    drawn.set(chart, work);
    work.catch((error) => {
      plot.classList.add("failed");
      plot.textContent = typeof DecompressionStream === "undefined"
        ? "This browser is too old to draw the charts: it has no DecompressionStream (Chrome and Edge 80, Safari 16.4, "
          + "Firefox 113 or newer have it). Text and tables are complete, and the charts lie as pictures among the run's "
          + "artifacts, in the folder figures."
        : "This chart could not be drawn: " + error.message;
    });
    return work;
  }

  // -- when ----------------------------------------------------------------------------------------------------

  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    seen.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "800px 0px" });
  charts.forEach((chart) => seen.observe(chart));

  async function all() {
    await Promise.allSettled(charts.map(draw));
  }
  window.drawAllCharts = all; // for who prints a page by a program

  // On paper every chart has the width of the sheet, whatever the window's was.
  function fit(width) {
    charts.forEach((chart) => {
      if (chart.dataset.drawn !== "yes") return;
      const plot = chart.querySelector(".plot");
      const sheet = chart.closest(".charts") ? PAPER / 2 - 14 : PAPER;
      Plotly.relayout(plot, width === null ? { autosize: true, width: null } : { width: sheet });
    });
  }
  let printing = false;
  function paper(on) {
    if (on === printing) return;
    printing = on;
    all();
    fit(on ? PAPER : null);
  }
  window.addEventListener("beforeprint", () => paper(true));
  window.addEventListener("afterprint", () => paper(false));
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));
})();
