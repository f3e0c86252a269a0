// Dialogs that open, plots that are drawn, and what must survive when htmx replaces a part. No page is named here.
"use strict";
(() => {
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens).showModal();
  });

  // A <details> that somebody opened stays open when the part around it comes anew.
  const opened = new WeakMap();
  document.addEventListener("htmx:beforeSwap", ({ detail }) => {
    opened.set(detail.xhr, [...detail.target.querySelectorAll("details[open][id]")].map((one) => one.id));
  });
  document.addEventListener("htmx:afterSettle", ({ detail }) => {
    for (const id of opened.get(detail.xhr) ?? []) document.getElementById(id)?.setAttribute("open", "");
    drawAll();
  });

  // Between two ticks of a time axis, in seconds.
  const STEPS = [1, 5, 15, 30, 60, 300, 900, 1800, 3600, 7200, 14400, 21600, 43200, ...[1, 2, 7, 14, 30, 90, 365].map((days) => days * 86400)];

  const drawn = new Map();
  const probe = document.createElement("span");
  probe.hidden = true;

  // Canvas knows no CSS: the colours are asked of an element, so that light and dark are decided in one place.
  function colour(name) {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  }

  function faded(rgb, alpha) {
    return rgb.replace(/^rgba?\(([^)]*)\)$/, (_, parts) => `rgba(${parts.split(/[ ,/]+/).slice(0, 3).join(", ")}, ${alpha})`);
  }

  function draw(place) {
    const spec = JSON.parse(place.dataset.plot);
    const font = "13px " + getComputedStyle(document.body).fontFamily;
    const data = [spec.x], series = [{}], bands = [], ends = [];
    for (const line of spec.lines) {
      const stroke = colour(`arm-${line.colour}`), at = series.length;
      data.push(line.mid);
      series.push({ stroke, width: 2, points: { show: spec.x.length < 3 }, spanGaps: true, dash: line.dashed ? [6, 4] : undefined });
      ends.push({ at, name: line.name, stroke });
      if (line.low) {
        data.push(line.high, line.low);
        for (let i = 0; i < 2; i++) series.push({ stroke: "transparent", width: 0, points: { show: false }, spanGaps: true });
        bands.push({ series: [at + 1, at + 2], fill: faded(stroke, 0.18) });
      }
    }
    const axis = { stroke: colour("muted"), font, grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = font;
    const room = Math.max(24, ...ends.map((end) => pen.measureText(end.name).width + 14));
    const plot = new uPlot({
      width: place.clientWidth, height: 240, legend: { show: false }, padding: [12, room, 0, 4],
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC"),
      scales: {
        x: { time: spec.time },
        y: { range: (_, low, high) => range(spec, low, high) },
      },
      axes: [{ ...axis, ...(spec.time ? { values: clock, incrs: STEPS, space: 80 } : {}) }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => (spec.signed && tick > 0 ? "+" : "") + tick.toLocaleString("en", { maximumSignificantDigits: 4 })) }],
      series, bands, cursor: { drag: { x: false, y: false } },
      hooks: { draw: [(u) => { if (spec.signed) zero(u); label(u, ends, font); }] },
    }, data, place);
    drawn.set(place, plot);
  }

  // ISO dates and 24 hours in UTC, as everywhere on the page. The date stands where it changes.
  function clock(u, ticks, _axis, _space, step) {
    let day = "";
    return ticks.map((tick) => {
      const [date, time] = new Date(tick * 1e3).toISOString().split("T");
      const now = step >= 86400 ? date : time.slice(0, step < 60 ? 8 : 5) + (date === day ? "" : "\n" + date);
      day = date;
      return now;
    });
  }

  // Intervals begin very wide: the newest ones decide what is seen, and what is far beyond them is cut off.
  function focus(spec, low, high) {
    if (!spec.lines.some((line) => line.low)) return [low, high];
    const shown = spec.lines.flatMap((line) => [line.mid, line.low, line.high].filter(Boolean));
    const ends = shown.map((part) => part.findLast((value) => value !== null) ?? 0);
    const least = Math.min(0, ...ends), most = Math.max(0, ...ends), span = most - least;
    const [floor, ceiling] = spec.share ? [-100, 100] : [-Infinity, Infinity];
    return [Math.max(low, least - span, floor), Math.min(high, most + span, ceiling)];
  }

  function range(spec, low, high) {
    if (low === null || high === null) return [0, 1];
    if (spec.signed) [low, high] = focus(spec, low, high);
    if (spec.signed || spec.zero) { low = Math.min(low, 0); high = Math.max(high, 0); }
    const margin = (high - low || Math.abs(high) || 1) * 0.08;
    return [low < 0 || !spec.zero ? low - margin : 0, high + margin];
  }

  function zero(u) {
    const y = Math.round(u.valToPos(0, "y", true)), { ctx, bbox } = u;
    ctx.save();
    ctx.strokeStyle = colour("text");
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }

  // Each line is named where it ends; names that would cover each other are moved apart.
  function label(u, ends, font) {
    const { ctx, bbox } = u, step = 15 * devicePixelRatio;
    const placed = ends.map((end) => {
      const last = u.data[end.at].findLastIndex((value) => value !== null);
      return last < 0 ? null : { ...end, y: u.valToPos(u.data[end.at][last], "y", true) };
    }).filter(Boolean).sort((one, other) => one.y - other.y);
    ctx.save();
    ctx.font = font.replace("13px", `${13 * devicePixelRatio}px`);
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    let least = bbox.top;
    for (const end of placed) {
      const y = Math.max(end.y, least);
      least = y + step;
      ctx.fillStyle = end.stroke;
      ctx.fillText(end.name, bbox.left + bbox.width + 6 * devicePixelRatio, y);
    }
    ctx.restore();
  }

  function drawAll() {
    document.body.append(probe);
    for (const [place, plot] of drawn) {
      if (place.isConnected) continue;
      plot.destroy();
      drawn.delete(place);
    }
    for (const place of document.querySelectorAll("[data-plot]")) if (!drawn.has(place)) draw(place);
    document.documentElement.dataset.ready = "yes";
  }

  function again() {
    for (const plot of drawn.values()) plot.destroy();
    drawn.clear();
    drawAll();
  }

  document.addEventListener("DOMContentLoaded", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(again, 150); });
})();
