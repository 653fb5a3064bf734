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

  // Breaks an axis's title where it would leave the chart: plotly cuts it.
  function wrapped(title, pixels) {
    const most = Math.max(12, Math.floor(pixels / 6.6));
    const lines = [""];
    title.split(" ").forEach((word) => {
      const last = lines[lines.length - 1];
      if (last && (last + " " + word).replace(/&\w+;/g, "&").length > most) lines.push(word);
      else lines[lines.length - 1] = last ? last + " " + word : word;
    });
    return lines.join("<br>");
  }

  function styled(layout, plot) {
    const axis = (given, pixels) => Object.assign({
      automargin: true, gridcolor: GRID, linecolor: QUIET, tickcolor: QUIET, zerolinecolor: "#b9bfc5",
      zerolinewidth: 1, ticks: "outside", ticklen: 4, exponentformat: "none", separatethousands: true,
    }, given, given.title ? { title: { text: wrapped(given.title.text, pixels), font: { size: 12 }, standoff: 8 } } : {});
    const full = Object.assign({}, layout, {
      autosize: true, showlegend: false, paper_bgcolor: "#fff", plot_bgcolor: "#fff",
      font: { family: FONT, size: 12, color: INK },
      margin: { l: 8, r: 12, t: 14, b: 8, pad: 0 },
      hoverlabel: { font: { family: FONT, size: 12, color: INK }, bgcolor: "#fff", bordercolor: QUIET, namelength: 40 },
      xaxis: axis(layout.xaxis, plot.clientWidth - 70), yaxis: axis(layout.yaxis, plot.clientHeight - 50),
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

  // The buttons of the legend and of the axis.
  function connect(chart, plot, legend) {
    const switches = [...chart.querySelectorAll(".legend button")];
    const now = () => switches.map((made) => made.getAttribute("aria-pressed") === "true");
    const show = (wanted) => {
      const before = now();
      switches.forEach((made, k) => {
        if (wanted[k] === before[k]) return;
        made.setAttribute("aria-pressed", String(wanted[k]));
        Plotly.restyle(plot, { visible: wanted[k] }, legend[k].traces);
      });
    };
    switches.forEach((made, k) => {
      made.addEventListener("click", () => show(now().map((on, other) => (other === k ? !on : on))));
      made.addEventListener("dblclick", () => {
        const alone = now().every((on, other) => on === (other === k));
        show(switches.map((_, other) => alone || other === k));
      });
    });
    const log = chart.querySelector(".log");
    if (log) {
      log.addEventListener("click", () => {
        const wanted = log.getAttribute("aria-pressed") !== "true";
        log.setAttribute("aria-pressed", String(wanted));
        Plotly.relayout(plot, { "yaxis.type": wanted ? "log" : "linear", "yaxis.autorange": true });
      });
    }
  }

  const drawn = new Map(), legends = new Map();
  function draw(chart) {
    if (drawn.has(chart)) return drawn.get(chart);
    const plot = chart.querySelector(".plot");
    const work = ready().then(() => {
      const found = JSON.parse(chart.querySelector("script").textContent);
      const axes = found.axes.map(shared);
      found.traces.forEach((trace) => ["x", "y"].forEach((name) => {
        if (trace[name] && trace[name].axis !== undefined) trace[name] = axes[trace[name].axis];
      }));
      legends.set(chart, found.legend);
      return Plotly.newPlot(plot, found.traces, styled(found.layout, plot), {
        displaylogo: false, doubleClick: "reset",
        modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
      });
    }).then(() => {
      connect(chart, plot, legends.get(chart));
      chart.dataset.drawn = "yes";
      if (printing) fit([chart]);
      resized.observe(plot);
    });
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
    charts.forEach((chart) => { chart.closest("details").open = true; }); // what is folded has no width to draw for
    await Promise.allSettled(charts.map(draw));
  }
  window.drawAllCharts = all; // for who prints a page by a program

  // On paper every chart has the width of the sheet, whatever the window's was; on a screen that of its place.
  let printing = false;
  function fit(those) {
    those.filter((chart) => chart.dataset.drawn === "yes").forEach((chart) => {
      const sheet = chart.closest(".charts") ? PAPER / 2 - 14 : PAPER;
      Plotly.relayout(chart.querySelector(".plot"), printing ? { width: sheet } : { autosize: true, width: null });
    });
  }
  const resized = new ResizeObserver((entries) => requestAnimationFrame(() => {
    if (!printing) fit(entries.map((entry) => entry.target.closest("figure.chart")));
  }));
  function paper(on) {
    if (on === printing) return;
    printing = on;
    if (on) all();
    fit(charts);
  }
  window.addEventListener("beforeprint", () => paper(true));
  window.addEventListener("afterprint", () => paper(false));
  matchMedia("print").addEventListener("change", (event) => paper(event.matches));
})();
