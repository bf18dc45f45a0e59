"use strict";
// The daemon's page. `receive` takes messages of the monitoring WebSocket into the state, `render` makes the page's parts of
// it, `connect` and `paint` alone touch the browser.

const SECONDS = 300, EVENTS = 100;

function freshState() {
  return { connected: false, snapshot: null, samples: [], scalings: [] };
}

/** Takes a message into the state. Says what to ask the daemon for next. */
function receive(state, message) {
  const data = message.data;
  switch (message.type) {
    case "status": return ["get_details"];
    case "details":
      state.snapshot = data.snapshot;
      if (data.sample) addSample(state, data.sample);
      return [];
    case "history":
      state.samples = [];
      data.samples.forEach((sample) => addSample(state, sample));
      state.scalings = data.scalings.slice(-EVENTS);
      return [];
    case "scaling":
      state.scalings.push({ time: Date.now() / 1000, data });
      state.scalings.splice(0, state.scalings.length - EVENTS);
      return [];
    default: return [];
  }
}

function addSample(state, sample) {
  const last = state.samples[state.samples.length - 1];
  if (last && sample.time <= last.time) return;
  state.samples.push(sample);
  while (state.samples[0].time < sample.time - SECONDS) state.samples.shift();
}

/** Whatever a client named is text and nothing else. */
function text(value) {
  const codes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return String(value).replace(/[&<>"']/g, (c) => codes[c]);
}

function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) { value /= 1024; unit++; }
  return `${value >= 100 || unit === 0 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2)} ${units[unit]}`;
}

function milliseconds(value) {
  if (value == null) return "–";
  if (value >= 60000) return `${(value / 60000).toFixed(1)} min`;
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10000 ? 1 : 2)} s`;
  if (value >= 1) return `${value.toFixed(value >= 10 ? 0 : 1)} ms`;
  return `${(value * 1000).toFixed(0)} µs`;
}

function count(value) {
  return Number(value).toLocaleString("en").replace(/,/g, "\u202f");
}

function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  let left = Math.floor(seconds);
  const told = parts.slice(first, first + 2).map(([size, unit]) => {
    const whole = Math.floor(left / size);
    left -= whole * size;
    return whole ? `${whole} ${unit}` : "";
  });
  return told.filter(Boolean).join(" ");
}

/** The least of 1, 2, 5 and their tens that is no less. */
function roundUp(value) {
  if (!(value > 0)) return 1;
  const ten = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * ten).find((step) => step >= value * 0.999999);
}

/** The same for bytes, which are told in powers of 1024. */
function roundUpBytes(value) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(Math.max(value, 1)) / 10));
  const rounded = roundUp(value / unit);
  return (rounded > 500 ? 1024 : rounded) * unit;
}

/** Lines over the last minutes. A series is {name, color, values, area}, `null` where nothing is known. */
function plot(samples, series, format, least) {
  const now = samples.length ? samples[samples.length - 1].time : 0;
  const known = series.flatMap((one) => one.values).filter((value) => value != null);
  const most = Math.max((format === bytes ? roundUpBytes : roundUp)(Math.max(0, ...known)), least || 0);
  const x = (index) => (SECONDS - (now - samples[index].time)).toFixed(1);
  const y = (value) => (100 - 96 * value / most).toFixed(1);
  const paths = series.map(({ color, values, area }) => {
    let line = "", fill = "", start = null;
    values.forEach((value, index) => {
      if (value == null) { start = null; return; }
      if (start === null) start = index;
      line += `${start === index ? "M" : "L"}${x(index)} ${y(value)}`;
      // A single second is a dot.
      if (start === index && values[index + 1] == null) line += "h.01";
    });
    if (area && line) {
      fill = values.map((value, index) => `${index ? "L" : "M"}${x(index)} ${y(value || 0)}`).join("");
      fill = `<path class="area k${color}" d="${fill}L${x(values.length - 1)} 100L${x(0)} 100Z"/>`;
    }
    return fill + `<path class="k${color}" d="${line}"/>`;
  });
  const grid = [4, 52, 100].map((at) => `<line x1="0" x2="${SECONDS}" y1="${at}" y2="${at}"/>`).join("");
  const legend = series.map(({ name, color, values }) => {
    const last = values.length ? values[values.length - 1] : null;
    return `<span><i class="d${color}"></i>${text(name)} <b>${last == null ? "–" : format(last)}</b></span>`;
  });
  return `<div class="plot"><svg viewBox="0 0 ${SECONDS} 100" preserveAspectRatio="none" role="img" ` +
    `aria-label="${text(series.map((one) => one.name).join(", "))} over five minutes">${grid}${paths.join("")}</svg>` +
    `<span class="top">${format(most)}</span><span class="zero">0</span></div>` +
    `<div class="axis"><span></span><span>5 minutes</span></div><div class="legend">${legend.join("")}</div>`;
}

/** Columns are [head, cell of a row, class]. */
function table(columns, rows, none) {
  if (!rows.length) return `<p class="none">${none}</p>`;
  const heads = columns.map(([head, , kind]) => `<th class="${kind || ""}">${head}</th>`).join("");
  const body = rows.map((row) =>
    `<tr>${columns.map(([, cell, kind]) => `<td class="${kind || ""}">${cell(row)}</td>`).join("")}</tr>`).join("");
  return `<table><thead><tr>${heads}</tr></thead><tbody>${body}</tbody></table>`;
}

function tiles(state) {
  const { snapshot, samples } = state;
  const recent = samples.slice(-10);
  const mean = (of) => recent.length ? recent.reduce((sum, sample) => sum + of(sample), 0) / recent.length : 0;
  const lastKnown = (of) => { const known = samples.map(of).filter((value) => value != null); return known[known.length - 1]; };
  const memory = snapshot.memory;
  const share = (part, whole) => whole ? `<div class="bar"><svg viewBox="0 0 100 1" preserveAspectRatio="none" width="100%" ` +
    `height="5"><rect width="${Math.min(100, 100 * part / whole).toFixed(1)}" height="1" fill="currentColor"/></svg></div>` : "";
  const waiting = snapshot.pools.reduce((sum, pool) => sum + pool.queue_depth, 0);
  const busy = snapshot.pools.reduce((sum, pool) => sum + pool.busy_workers, 0);
  const all = [
    [mean((sample) => sample.requests).toFixed(1), "requests per second, over 10 s", ""],
    [milliseconds(lastKnown((sample) => sample.p50_ms)), `half of the work within; 95 % within ${milliseconds(lastKnown((sample) => sample.p95_ms))}`, ""],
    [`${busy} <small>+ ${waiting}</small>`, "requests at work + waiting", ""],
    [bytes(memory.resident), `in use of ${bytes(memory.total)}`, share(memory.resident, memory.total)],
    [bytes(memory.models), `models, of at most ${bytes(memory.models_budget)}`, share(memory.models, memory.models_budget)],
    ...snapshot.gpus.map((gpu) => [bytes(gpu.used), `${text(gpu.name)}, of ${bytes(gpu.total)}`, share(gpu.used, gpu.total)]),
    [count(snapshot.total_requests), "requests since the start", ""],
  ];
  return all.map(([value, what, bar]) => `<div class="tile"><b>${value}</b><span>${what}</span>${bar}</div>`).join("");
}

function pools(state) {
  return state.snapshot.pools.map((pool) => {
    const of = (key) => state.samples.map((sample) => {
      const found = sample.pools.find((one) => one.name === pool.type);
      return found ? found[key] : null;
    });
    const lines = plot(state.samples, [
      { name: "waiting", color: 1, values: of("queue"), area: true },
      { name: "busy", color: 0, values: of("busy") },
      { name: "workers", color: 2, values: of("workers") },
    ], String, pool.max_workers);
    const wrong = [[pool.refused, "refused"], [pool.panicked, "panicked"]].filter(([number]) => number)
      .map(([number, what]) => `, <span class="bad">${count(number)} ${what}</span>`).join("");
    return `<div class="pool"><h3>${text(pool.type)}<small>${pool.min_workers}–${pool.max_workers} workers</small></h3>` +
      `${lines}<small class="none">${count(pool.total_requests)} done${wrong}</small></div>`;
  }).join("");
}

/** The page's parts by their ids. */
function render(state) {
  const { snapshot, samples } = state;
  const status = state.connected ? (snapshot ? snapshot.status : "connecting") : "offline";
  const parts = { state: [status, status === "ok" ? "on" : status === "offline" ? "off" : "wait"] };
  if (!snapshot) return parts;
  const series = (name, color, of, area) => ({ name, color, values: samples.map(of), area });
  parts.about = `${text(snapshot.version)} · ${text(snapshot.device)} · ${text(snapshot.precision)} · ` +
    `${snapshot.threads} threads · up ${duration(snapshot.uptime_seconds)}`;
  parts.tiles = tiles(state);
  parts.requests = plot(samples, [
    series("answered", 0, (sample) => sample.requests, true),
    series("failed", 3, (sample) => sample.errors),
    series("told busy", 1, (sample) => sample.busy),
  ], count, 5);
  parts.latency = plot(samples, [
    series("half within", 0, (sample) => sample.p50_ms),
    series("95 % within", 1, (sample) => sample.p95_ms),
  ], milliseconds, 0);
  parts.memory = plot(samples, [
    series("process", 0, (sample) => sample.resident, true),
    series("models", 2, (sample) => sample.models),
    ...snapshot.gpus.map((gpu, index) => series(`GPU ${gpu.index}`, 1 + 2 * (index % 2), (sample) => sample.gpus_used[index])),
  ], bytes, 0);
  parts.pools = pools(state);
  parts.models = table([
    ["model", (model) => text(model.name), "name"],
    ["holds", (model) => model.components.map(text).join(", "), "soft"],
    ["memory", (model) => model.loaded ? bytes(model.bytes) : "not loaded", "n"],
    ["in use by", (model) => count(model.leases), "n"],
  ], snapshot.models, "No model is registered yet.");
  const commands = Object.entries(snapshot.commands).map(([name, counters]) => ({ name, ...counters }));
  parts.commands = table([
    ["command", (command) => text(command.name), "name"],
    ["requests", (command) => count(command.requests), "n"],
    ["failed", (command) => count(command.errors), "n"],
    ["busy", (command) => count(command.busy), "n"],
    ["half in", (command) => milliseconds(command.p50_ms), "n"],
    ["95 % in", (command) => milliseconds(command.p95_ms), "n"],
  ], commands, "Nothing was asked for yet.");
  parts.scalings = table([
    ["time", ({ time }) => new Date(time * 1000).toLocaleTimeString("en-GB"), "soft"],
    ["pool", ({ data }) => text(data.pool), "name"],
    ["", ({ data }) => data.event === "scale_up"
      ? `<span class="up">▲ worker ${data.worker_id} started</span>` : `<span class="down">▼ worker ${data.worker_id} ended</span>`],
    ["workers", ({ data }) => data.active_workers, "n"],
    ["memory left", ({ data }) => data.vram_available_gb == null ? "–" : bytes(data.vram_available_gb * 2 ** 30), "n"],
  ], state.scalings.slice(-8).reverse(), "No worker was started or ended yet.");
  parts.saves = saves(snapshot.saves);
  parts.clients = table([
    ["client", (client) => text(client.name), "name"],
    ["connection", (client) => client.connection, "n"],
    ["requests under way", (client) => count(client.under_way), "n"],
    ["bytes under way", (client) => bytes(client.bytes), "n"],
  ], snapshot.clients.slice(0, 50), "Nobody is connected.");
  return parts;
}

function saves(of) {
  if (!of) return `<p class="none">The daemon has no output folder: clients save nothing by it.</p>`;
  const numbers = [["written", of.written], ["rejected", of.rejected], ["failed", of.failed], ["cancelled", of.cancelled]];
  const told = numbers.map(([what, number]) =>
    `<span class="${what === "failed" && number ? "bad" : ""}"><b>${count(number)}</b> ${what}</span>`).join("");
  return `<div class="legend"><span><b>${count(of.jobs - of.jobs_finished)}</b> jobs under way</span>` +
    `<span><b>${count(of.jobs_finished)}</b> finished</span><span><b>${bytes(of.queue_bytes)}</b> of pixels waiting</span></div>` +
    `<div class="legend">pictures: ${told}</div><div class="legend"><span><b>${bytes(of.bytes_written)}</b> written to files</span></div>`;
}

/** Puts the parts where they belong. */
function paint(state) {
  const { state: [status, kind], ...parts } = render(state);
  const pill = document.getElementById("state");
  pill.textContent = status;
  pill.className = `pill ${kind}`;
  for (const [id, html] of Object.entries(parts)) {
    const element = document.getElementById(id);
    if (element.innerHTML !== html) element.innerHTML = html;
  }
}

function connect(state, pause) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/`);
  const ask = (type) => socket.send(JSON.stringify({ type }));
  socket.onopen = () => {
    state.connected = true;
    pause = 500;
    ask("get_history");
    ask("get_details");
  };
  socket.onmessage = (event) => {
    receive(state, JSON.parse(event.data)).forEach(ask);
    paint(state);
  };
  socket.onclose = () => {
    state.connected = false;
    paint(state);
    setTimeout(() => connect(state, Math.min(pause * 2, 10000)), pause);
  };
}

if (typeof document !== "undefined") connect(freshState(), 500);
