"use strict";
// Everything that comes from the API is hostile: prompts, model names, error texts. It is only ever written as text, never as markup.

const $ = (id) => document.getElementById(id);
const ROWS = 500, LINES = 2000;

let token = sessionStorage.getItem("farllama-admin-token") || "";

/** Calls the API. Throws an error with the server's text. */
async function call(method, path, body) {
  const headers = {};
  if (method !== "GET") headers["x-farllama-admin"] = "1";
  if (token) headers.authorization = `Bearer ${token}`;
  const options = { method, headers, cache: "no-store" };
  if (body !== undefined) options.body = JSON.stringify(body);
  const response = await fetch(path, options);
  if (response.status === 401) await askToken();
  const text = await response.text();
  let json = null;
  try { json = JSON.parse(text); } catch { /* not all responses are JSON */ }
  if (!response.ok) throw new Error(json && json.error ? json.error : `${response.status} ${text}`);
  return json === null ? text : json;
}

let asking = null;
function askToken() {
  asking = asking || new Promise((done) => {
    $("token-dialog").showModal();
    $("token-form").onsubmit = () => {
      token = $("token").value;
      sessionStorage.setItem("farllama-admin-token", token);
      asking = null;
      done();
      connect();
    };
  });
  return asking;
}

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

/** Runs an action of the operator; says what went wrong. */
async function act(button, work) {
  if (button) button.disabled = true;
  try {
    say("");
    return await work();
  } catch (error) {
    say(String(error.message || error));
    return undefined;
  } finally {
    if (button) button.disabled = false;
    if (status) show(status);
  }
}

/** A new element with a text. */
function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (className) element.className = className;
  return element;
}

const described = (remote) => remote.kind === "openai"
  ? `OpenAI server${remote.server ? ` (${remote.server})` : ""}`
  : `Ollama ${remote.version || "of unknown version"}`;
const known = (value, unit = "") => value === null || value === undefined ? "–" : `${value}${unit}`;
const clock = (ms) => new Date(ms).toLocaleTimeString();
function size(bytes) {
  if (typeof bytes !== "number") return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (bytes >= 1024 && at < units.length - 1) { bytes /= 1024; at += 1; }
  return `${at ? bytes.toFixed(1) : bytes} ${units[at]}`;
}
function time(ms) {
  if (ms === null || ms === undefined) return "–";
  return ms < 1000 ? `${Math.round(ms)} ms` : ms < 60000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.floor(ms / 60000)} min ${Math.round(ms % 60000 / 1000)} s`;
}

async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS a browser may refuse it beyond localhost.
    const area = make("textarea", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1200);
}

// Status.

let status = null;

function show(now) {
  status = now;
  const running = now.listener.running;
  $("state").textContent = running ? "running" : "stopped";
  $("state").className = `badge ${running ? "good" : "bad"}`;
  $("start").disabled = running;
  $("stop").disabled = !running;
  $("ollama-url").textContent = now.listener.ollama;
  $("openai-url").textContent = now.listener.openai;
  $("keys").textContent = now.listener.keys ? "callers need a key" : "no key is required";
  $("version").textContent = `${now.version}, running for ${time(now.uptime_s * 1000)}`;
  $("remote-url").textContent = now.remote.url;
  $("remote-state").textContent = now.remote.reachable ? "reachable" : now.remote.error;
  $("remote-state").className = now.remote.reachable ? "good" : "bad";
  $("remote-version").textContent = now.remote.reachable ? described(now.remote) : "–";
  $("remote-latency").textContent = now.remote.reachable ? known(now.remote.latency_ms, " ms") : "–";
  const remotes = now.remotes || [];
  $("remotes-part").hidden = !remotes.length;
  fill("remotes", remotes.map((remote) => row([
    make("td", remote.name, "text"),
    make("td", remote.reachable ? "up" : `down: ${remote.error}`, remote.reachable ? "good" : "bad"),
    make("td", remote.url, "text"),
    remote.reachable ? described(remote) : "–",
    remote.reachable ? known(remote.latency_ms, " ms") : "–",
    known(remote.in_flight),
    remote.priority,
    remote.weight,
    make("td", (remote.installed || []).map((name) => (remote.loaded || []).includes(name) ? `${name} (loaded)` : name).join(", ") || "–", "text"),
  ])), "no remotes");
  const until = now.inspector.until_ms;
  $("inspecting").hidden = !until;
  if (until) $("inspecting").textContent = `The inspector is on until ${clock(until)}: prompts and answers are kept in memory.`;
  $("inspector-switch").setAttribute("aria-pressed", String(Boolean(until)));
  $("inspector-switch").textContent = until ? "Switch off" : "Switch on";
}

for (const action of ["start", "stop", "restart"]) {
  $(action).onclick = () => act($(action), async () => {
    await call("POST", `/api/${action}`);
    show(await call("GET", "/api/status"));
  });
}
for (const button of document.querySelectorAll("[data-copy]")) {
  button.onclick = () => copy($(button.dataset.copy).textContent, button);
}

// Tables.

function fill(table, rows, nothing) {
  const body = $(table).tBodies[0];
  const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : undefined;
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  if (!rows.length) {
    const row = make("tr"), cell = make("td", nothing, "quiet");
    cell.colSpan = $(table).tHead.rows[0].cells.length;
    row.append(cell);
    body.append(row);
  }
}

function row(cells, className) {
  const line = make("tr", null, className);
  for (const cell of cells) line.append(cell instanceof Node ? cell : make("td", cell));
  return line;
}

async function models() {
  try {
    const { loaded, installed } = await call("GET", "/api/models");
    fill("loaded", loaded.map((model) => row([
      make("td", model.name, "text"), size(model.size), model.size ? `${Math.round(100 * (model.size_vram || 0) / model.size)} %` : "–",
      known(model.context_length), model.expires_at ? new Date(model.expires_at).toLocaleTimeString() : "–",
    ])), "No model is loaded.");
    fill("installed", installed.map((model) => row([
      make("td", model.name, "text"), size(model.size), known(model.details && model.details.parameter_size),
      make("td", (model.capabilities || []).join(", ") || "–", "text"),
    ])), "No model is installed.");
  } catch (error) {
    for (const table of ["loaded", "installed"]) fill(table, [], String(error.message));
  }
  try {
    const { keys } = await call("GET", "/api/quotas");
    const tokens = (window) => (window === null ? "–" : `${window.used} of ${window.limit}`);
    fill("quotas", keys.map((key) => row([
      make("td", key.name, "text"), key.limit === null ? "–" : `${key.used} of ${key.limit}`, known(key.left), time(key.reset_ms), known(key.max_concurrent), tokens(key.tokens_per_minute), tokens(key.tokens_per_day),
    ])), "No key is required, or there are none.");
  } catch { /* shown above */ }
}

// Requests.

const requests = { running: [], finished: [], paused: false, received: 0 };

function requestRow(one, running) {
  const elapsed = running ? one.running_ms + performance.now() - requests.received : one.total_ms;
  const action = make("td");
  if (running) {
    const cancel = make("button", "Cancel");
    cancel.dataset.key = `cancel-${one.key}`;
    cancel.setAttribute("aria-label", `Cancel ${one.method} ${one.path}`);
    cancel.onclick = () => act(cancel, () => call("POST", `/api/requests/${one.key}/cancel`));
    action.append(cancel);
  } else if (one.captured) {
    const inspect = make("button", "Inspect");
    inspect.dataset.key = `inspect-${one.key}`;
    inspect.onclick = () => { select("inspector"); open(one.key); };
    action.append(inspect);
  }
  const end = make("td", running ? (one.waiting_for ? `waits for ${one.waiting_for}` : "running") : one.ending, "text");
  if (!running && one.error) end.append(make("div", one.error, "quiet"));
  if (!running) end.firstChild && end.classList.add(one.ending === "complete" ? "good" : one.ending === "client gone" || one.ending === "canceled" ? "warn" : "bad");
  return row([
    clock(one.started_ms), make("td", `${one.method} ${one.path}`, "text"), make("td", known(one.model), "text"), make("td", known(one.caller), "text"),
    known(one.status), make("td", time(one.first_token_ms), "number"), make("td", time(elapsed), "number"),
    make("td", one.input_tokens === null || one.input_tokens === undefined ? "–" : `${one.input_tokens} → ${one.output_tokens}`, "number"),
    make("td", known(one.tokens_per_second), "number"), end, action,
  ], running ? "running" : "");
}

function drawRequests() {
  if (requests.paused || $("requests").hidden) return;
  const words = $("request-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (one) => {
    const text = [one.method, one.path, one.endpoint, one.model, one.caller, one.peer, one.status, one.ending || "running", one.error, one.id].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  };
  const running = requests.running.filter(fits).reverse(), finished = requests.finished.filter(fits).reverse();
  fill("request-table", [...running.map((one) => requestRow(one, true)), ...finished.map((one) => requestRow(one, false))], "No requests yet.");
  $("request-count").textContent = `${running.length} running, ${finished.length} finished`;
}

$("request-filter").oninput = drawRequests;
$("request-pause").onclick = () => {
  requests.paused = !requests.paused;
  $("request-pause").setAttribute("aria-pressed", String(requests.paused));
  $("request-pause").textContent = requests.paused ? "Resume" : "Pause";
  drawRequests();
};

// Logs.

const log = { lines: [], paused: false };

function wantedLines() {
  const levels = ["error", "warn", "info", "debug", "trace"];
  const least = levels.indexOf($("log-level").value), search = $("log-search").value.toLowerCase();
  return log.lines.filter((line) => levels.indexOf(line.level) <= least && line.text.toLowerCase().includes(search));
}

function drawLog() {
  if (log.paused || $("logs").hidden) return;
  const box = $("log"), follow = box.scrollTop + box.clientHeight >= box.scrollHeight - 40;
  box.replaceChildren(...wantedLines().map((line) => make("div", line.text, line.level)));
  if (follow) box.scrollTop = box.scrollHeight;
}

$("log-level").onchange = drawLog;
$("log-search").oninput = drawLog;
$("log-pause").onclick = () => {
  log.paused = !log.paused;
  $("log-pause").setAttribute("aria-pressed", String(log.paused));
  $("log-pause").textContent = log.paused ? "Resume" : "Pause";
  drawLog();
};
$("log-copy").onclick = () => copy(wantedLines().map((line) => line.text).join("\n"), $("log-copy"));
$("log-clear").onclick = () => act($("log-clear"), async () => {
  await call("DELETE", "/api/logs");
  log.lines = [];
  drawLog();
});

// Charts.

const CHARTS = [
  { title: "Requests and errors", unit: "", series: [["requests", "requests"], ["errors", "errors"]], bars: true },
  { title: "Tokens in and out", unit: "", series: [["input_tokens", "in"], ["output_tokens", "out"]], bars: true },
  { title: "Time to first token", unit: " ms", series: [["first_token_p50_ms", "p50"], ["first_token_p95_ms", "p95"]] },
  { title: "Tokens per second", unit: "", series: [["tokens_per_second", "mean"]] },
];

function drawChart({ title, unit, series, bars }, points) {
  const svgMake = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const top = Math.max(0, ...points.flatMap((point) => series.map(([field]) => point[field] || 0)));
  const svg = svgMake("svg", { viewBox: "0 0 360 100", preserveAspectRatio: "none", role: "img" });
  svg.append(svgMake("line", { x1: 0, x2: 360, y1: 99.5, y2: 99.5 }));
  series.forEach(([field], nth) => {
    for (const point of points) {
      const value = point[field];
      if (value === null || value === undefined || !top) continue;
      const x = 360 - point.age_s / 10 - 2, height = 96 * value / top, className = nth ? "second" : "first";
      if (bars) svg.append(svgMake("rect", { x: x + (nth ? 1 : 0), y: 99 - height, width: nth ? .6 : 1.6, height, class: className }));
      else svg.append(svgMake("circle", { cx: x, cy: 98 - height, r: 1.4, class: className }));
    }
  });
  const sums = series.map(([field, name]) => {
    const values = points.map((point) => point[field]).filter((value) => typeof value === "number");
    const text = bars ? values.reduce((sum, value) => sum + value, 0) : values.length ? `${values[values.length - 1]}${unit} last` : "–";
    return `${name}: ${text}`;
  }).join(", ");
  svg.setAttribute("aria-label", `${title}. ${sums}. Highest: ${Math.round(top)}${unit}.`);
  const article = make("article"), figure = make("figure");
  article.append(make("h3", title));
  figure.append(svg, make("figcaption", `${sums}; highest ${Math.round(top * 10) / 10}${unit}`, "quiet"));
  article.append(figure);
  return article;
}

async function charts() {
  if ($("charts").hidden) return;
  const { points } = await call("GET", "/api/history");
  $("chart-list").replaceChildren(...CHARTS.map((chart) => drawChart(chart, points)));
}

// Inspector.

let opened = null;

async function captures() {
  if ($("inspector").hidden) return;
  const { exchanges } = await call("GET", "/api/inspector");
  fill("captures", exchanges.reverse().map((one) => {
    const action = make("td"), inspect = make("button", "Open");
    inspect.dataset.key = `open-${one.key}`;
    inspect.onclick = () => open(one.key);
    action.append(inspect);
    return row([clock(one.ended_ms), make("td", `${one.method} ${one.path}`, "text"), make("td", known(one.model), "text"), known(one.status), one.ending, action]);
  }), "Nothing is kept.");
}

function pretty(text) {
  return text.split("\n").map((line) => {
    try { return JSON.stringify(JSON.parse(line), null, line.length > 200 ? 2 : 0); } catch { return line; }
  }).join("\n");
}

function side(headers, body) {
  const head = headers.map(([name, value]) => `${name}: ${value}`).join("\n");
  return `${head}${head && body.text ? "\n\n" : ""}${pretty(body.text)}${body.cut ? `\n… (${body.bytes} bytes)` : ""}`;
}

function open(key) {
  return act(null, async () => {
    const one = await call("GET", `/api/inspector/${key}`);
    opened = one;
    $("capture").hidden = false;
    $("capture-title").textContent = `${one.method} ${one.path} → ${known(one.status)} (${one.ending})`;
    $("side-request").textContent = side(one.request_headers, one.request);
    const same = "The same: the native routes pass through.";
    $("side-ask").textContent = one.asks.length ? one.asks.map((ask) => `POST ${ask.path}\n\n${side([], ask.body)}`).join("\n\n") : one.path.startsWith("/api") ? same : "Ollama was not asked.";
    $("side-reply").textContent = one.asks.length ? side([], one.reply) : one.path.startsWith("/api") ? same : "–";
    $("side-response").textContent = side(one.response_headers, one.response);
    $("side-receipt").textContent = [one.receipt || "Nothing was emulated, and nothing was without effect.", one.error].filter(Boolean).join("\n");
    $("capture-title").scrollIntoView({ block: "nearest" });
  });
}

$("inspector-switch").onclick = () => act($("inspector-switch"), async () => {
  await call("PUT", "/api/inspector", { on: !(status && status.inspector.until_ms) });
  show(await call("GET", "/api/status"));
  await captures();
});
$("inspector-clear").onclick = () => act($("inspector-clear"), async () => {
  await call("DELETE", "/api/inspector");
  $("capture").hidden = true;
  await captures();
});
$("copy-curl").onclick = () => act(null, async () => copy(await call("GET", `/api/inspector/${opened.key}/curl`), $("copy-curl")));
$("save-scenario").onclick = () => act($("save-scenario"), async () => {
  const text = await call("GET", `/api/inspector/${opened.key}/scenario`);
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/yaml" }));
  link.download = `recorded-${opened.key}.yaml`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});

// The remote.

function change() {
  const body = {
    protocol: $("remote-protocol").value, host: $("remote-host").value.trim(), port: Number($("remote-port").value), base_path: $("remote-base").value.trim() || "/",
    kind: $("remote-kind").value, save: $("remote-save").checked, force: $("remote-force").checked,
  };
  if ($("remote-key").value) body.api_key = $("remote-key").value;
  return body;
}

function outcome(text, good) {
  $("remote-outcome").textContent = text;
  $("remote-outcome").className = good ? "good" : "bad";
}

const found = (one) => one.reachable
  ? `${one.url} answers: ${described(one)}, ${one.models === null ? "models unknown" : `${one.models} models`}. ${one.warnings.join(" ")}`
  : `${one.url}: ${one.error}`;

$("change-remote").onclick = () => act(null, async () => {
  const remote = await call("GET", "/api/remote");
  $("remote-protocol").value = remote.protocol;
  $("remote-kind").value = remote.kind;
  $("remote-host").value = remote.host;
  $("remote-port").value = remote.port;
  $("remote-base").value = remote.base_path || "/";
  $("remote-key").value = "";
  $("remote-save").checked = $("remote-force").checked = false;
  $("remote-save").disabled = !remote.file;
  $("remote-file").textContent = remote.file || "(there is none)";
  outcome("", true);
  $("remote-dialog").showModal();
});
$("remote-cancel").onclick = () => $("remote-dialog").close();

async function submit(button, method, path) {
  button.disabled = true;
  outcome("Testing…", true);
  try {
    const one = await call(method, path, change());
    outcome(found(one), one.reachable);
    return one;
  } catch (error) {
    outcome(String(error.message || error), false);
    return null;
  } finally {
    button.disabled = false;
  }
}

$("remote-test").onclick = () => $("remote-form").reportValidity() && submit($("remote-test"), "POST", "/api/remote/test");
$("remote-form").onsubmit = async (event) => {
  event.preventDefault();
  const one = await submit($("remote-apply"), "PUT", "/api/remote");
  if (!one || !one.applied) return;
  $("remote-dialog").close();
  say([...one.warnings, one.saved ? `Saved in ${one.saved}.` : ""].filter(Boolean).join(" "));
  show(await call("GET", "/api/status"));
  models();
};

// Views.

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(name) {
  for (const tab of tabs) {
    const on = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !on;
  }
  history.replaceState(null, "", `#${name}`);
  refresh();
}

for (const tab of tabs) {
  tab.onclick = () => select(tab.getAttribute("aria-controls"));
  tab.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const at = tabs.indexOf(tab);
    const next = step === Infinity ? tabs.length - 1 : step === -Infinity ? 0 : (at + step + tabs.length) % tabs.length;
    tabs[next].focus();
    select(tabs[next].getAttribute("aria-controls"));
  };
}

function refresh() {
  drawRequests();
  drawLog();
  charts().catch(() => {});
  captures().catch(() => {});
}

// Live updates. Read with fetch, because an EventSource cannot send the token.

let connection = 0;

async function connect() {
  connection += 1;
  const own = connection;
  try {
    const response = await fetch("/api/events", { headers: token ? { authorization: `Bearer ${token}` } : {}, cache: "no-store" });
    if (response.status === 401) { await askToken(); return; }
    if (!response.ok) throw new Error(`${response.status}`);
    requests.finished = [];
    log.lines = [];
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done || own !== connection) break;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      events.forEach(receive);
    }
  } catch { /* said below */ }
  if (own !== connection) return;
  $("state").textContent = "no connection to farllama";
  $("state").className = "badge bad";
  setTimeout(connect, 1500);
}

function receive(event) {
  const name = (event.match(/^event: ?(.*)$/m) || [])[1];
  const data = event.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
  if (!name || !data) return;
  const value = JSON.parse(data);
  if (name === "status") show(value);
  if (name === "requests") {
    requests.running = value.running;
    requests.received = performance.now();
    requests.finished = [...requests.finished, ...value.finished].slice(-ROWS);
    drawRequests();
    captures().catch(() => {});
  }
  if (name === "logs") {
    log.lines = [...log.lines, ...value].slice(-LINES);
    drawLog();
  }
}

const wanted = location.hash.slice(1);
select(tabs.some((tab) => tab.getAttribute("aria-controls") === wanted) ? wanted : "overview");
connect();
models();
setInterval(() => { if (!document.hidden) { models(); charts().catch(() => {}); } }, 10000);
setInterval(() => { if (requests.running.length) drawRequests(); }, 1000);
