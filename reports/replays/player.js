// Plays replays (offmarl/reports/records/replay.py describes their file). Every element of class "replays" holds, in
// <script type="application/octet-stream"> in base64, replays that play in step: the same start, by different players.
"use strict";
{
const MOST_UNPACKED = 2 ** 24;
const KINDS = ["units", "particles", "robot", "cells"];
const still = matchMedia("(prefers-reduced-motion: reduce)");

// Reading. What does not fit is refused; nothing in a file is ever code, and its words are only ever text.

function must(fits, what) { if (!fits) throw new Error(`it is damaged (${what})`); }
const whole = (value, low, high) => Number.isInteger(value) && value >= low && value <= high;
const real = (value) => typeof value === "number" && Math.abs(value) <= 1e9;
const words = (value) => typeof value === "string" && value.length <= 200;

function check(head) {
  must(head && head.format === "offmarl replay 1", "format");
  must(KINDS.includes(head.kind) && whole(head.steps, 0, 20000) && real(head.return) && head.tick > 0, "header");
  must(whole(head.agents, 1, 200) && whole(head.actions, 1, 100) && head.action_step > 0, "agents");
  must(Array.isArray(head.area) && head.area.length === 4 && head.area.every(real), "area");
  must(Array.isArray(head.columns) && whole(head.columns.length, 1, 16), "columns");
  must(head.columns.every((c) => words(c.name) && real(c.step) && c.step > 0), "columns");
  must(Array.isArray(head.bodies) && whole(head.bodies.length, 1, 300), "bodies");
  const sizes = (b) => ["agent", "size", "health", "shield", "sight"].every((key) => b[key] === undefined || real(b[key]));
  must(head.bodies.every((b) => words(b.name) && whole(b.side, 0, 2) && sizes(b)), "bodies");
  for (const key of ["title", "task", "quality", "end"]) must(words(head[key]), key);
  must((head.moves || []).every(words), "moves");
  return head;
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")).getReader();
  const parts = [];
  let size = 0;
  for (let part = await stream.read(); !part.done; part = await stream.read()) {
    parts.push(part.value);
    size += part.value.length;
    must(size <= MOST_UNPACKED, "size");
  }
  const all = new Uint8Array(size);
  parts.reduce((at, part) => { all.set(part, at); return at + part.length; }, 0);
  const line = all.indexOf(10);
  const head = check(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(all.subarray(0, Math.max(line, 0)))));
  const { steps: T, agents: I, actions: A } = head, K = head.bodies.length, C = head.columns.length;
  let at = line + 1;
  function series(count, step) {
    const values = new Float64Array(count);
    for (let k = 0, sum = 0; k < count; k++) {
      let zigzag = 0, unit = 1;
      for (let byte = 128; byte & 128; unit *= 128) {
        must(at < size && unit < 128 ** 5, "numbers");
        byte = all[at++];
        zigzag += (byte & 127) * unit;
      }
      sum += zigzag % 2 ? -(zigzag + 1) / 2 : zigzag / 2;
      values[k] = sum * step;
    }
    return values;
  }
  must(size - at >= K * C * (T + 1) + T + 1 + I * A * T, "numbers");
  const bodies = head.bodies.map((body) => {
    const own = { agent: -1, size: 0, health: 0, shield: 0, sight: 0, ...body };
    for (const column of head.columns) own[`$${column.name}`] = series(T + 1, column.step);
    return own;
  });
  const returns = series(T + 1, 1e-5);
  must(Math.abs(returns[T] - head.return) < 1e-5, "return");
  const actions = Array.from({ length: I }, () => Array.from({ length: A }, () => series(T, head.action_step)));
  must(at === size, "numbers");
  return { head, bodies, returns, actions, T };
}

// Drawing. A body's column `x` is body.$x[step]; between two steps places lie on a line.

const between = (values, t) => {
  const k = Math.min(Math.floor(t), values.length - 1), rest = t - k;
  return rest > 0 && k + 1 < values.length ? values[k] + (values[k + 1] - values[k]) * rest : values[k];
};

function extent(replays) {
  const [head] = replays.map((replay) => replay.head);
  if (head.kind === "robot" || head.kind === "cells") return head.area;
  let [left, bottom, right, top] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const { bodies } of replays) for (const body of bodies) body.$x.forEach((x, t) => {
    const y = body.$y[t];
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [bottom, top] = [Math.min(bottom, y), Math.max(top, y)];
  });
  const room = Math.max(...replays.flatMap((replay) => replay.bodies.map((body) => body.size))) + (head.kind === "units" ? 1 : 0.1);
  return [left - room, bottom - room, right + room, top + room];
}

class Picture {
  constructor(canvas, replay, area) {
    Object.assign(this, { canvas, replay, area, pen: canvas.getContext("2d"), seen: -1 });
  }

  draw(t) {
    const wide = this.canvas.clientWidth, [left, bottom, right, top] = this.area, ratio = devicePixelRatio || 1;
    const high = Math.min(Math.max(wide * (top - bottom) / (right - left), wide * 0.3), 560);
    this.canvas.width = wide * ratio;
    this.canvas.height = high * ratio;
    this.canvas.style.height = `${high}px`;
    const style = getComputedStyle(this.canvas);
    this.ink = (name) => style.getPropertyValue(`--${name}`).trim();
    this.unit = Math.min(wide / (right - left), high / (top - bottom));
    this.middle = [(left + right) / 2, (bottom + top) / 2];
    this.size = [wide, high];
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.pen.clearRect(0, 0, wide, high);
    this.pen.lineCap = "round";
    this.pen.textAlign = "center";
    this.pen.textBaseline = "middle";
    this[this.replay.head.kind](t, Math.round(still.matches ? t : Math.ceil(t - 1e-9)));
  }

  at(x, y) {
    return [this.size[0] / 2 + (x - this.middle[0]) * this.unit, this.size[1] / 2 - (y - this.middle[1]) * this.unit];
  }

  line(from, to, colour, width, dash = []) {
    this.pen.setLineDash(dash);
    this.pen.strokeStyle = colour;
    this.pen.lineWidth = width;
    this.pen.beginPath();
    this.pen.moveTo(...from);
    this.pen.lineTo(...to);
    this.pen.stroke();
    this.pen.setLineDash([]);
  }

  disc([x, y], radius, fill, stroke, width = 1.5, dash = [], square = false) {
    this.pen.setLineDash(dash);
    this.pen.beginPath();
    if (square) this.pen.rect(x - radius, y - radius, 2 * radius, 2 * radius);
    else this.pen.arc(x, y, Math.max(radius, 0.5), 0, 2 * Math.PI);
    if (fill) { this.pen.fillStyle = fill; this.pen.fill(); }
    if (stroke) { this.pen.strokeStyle = stroke; this.pen.lineWidth = width; this.pen.stroke(); }
    this.pen.setLineDash([]);
  }

  label(text, [x, y], colour, size) {
    this.pen.font = `600 ${size}px system-ui, sans-serif`;
    this.pen.fillStyle = colour;
    this.pen.fillText(text, x, y);
  }

  units(t, step) {
    const bodies = this.replay.bodies, before = Math.max(step - 1, 0);
    const place = (body) => this.at(between(body.$x, t), between(body.$y, t));
    const lives = (body, k) => body.$health[k] > 0;
    const viewer = bodies.find((body) => body.side === 0 && body.agent === this.seen && lives(body, step));
    const near = (body) => Math.hypot(body.$x[step] - viewer.$x[step], body.$y[step] - viewer.$y[step]);
    if (viewer) this.disc(place(viewer), viewer.sight * this.unit, this.ink("sight"), this.ink("line"), 1, [4, 4]);
    for (const body of bodies) {  // orders and shots, below the units
      const target = bodies[body.$target[step]];
      if (!target || !(lives(body, before) && step)) continue;
      const colour = this.ink(body.side ? "theirs" : "ours");
      if (body.$fires[step]) this.line(place(body), place(target), colour, 3);
      else this.line(place(body), place(target), colour, 1, [2, 5]);
    }
    for (const body of bodies) {
      const spot = place(body), radius = Math.max(body.size * this.unit, 6), colour = this.ink(body.side ? "theirs" : "ours");
      this.pen.globalAlpha = viewer && near(body) > viewer.sight ? 0.3 : 1;
      if (!lives(body, step)) {
        const arm = radius * 0.6, [x, y] = spot;
        this.pen.globalAlpha = lives(body, before) ? 1 : 0.35;
        this.line([x - arm, y - arm], [x + arm, y + arm], colour, 2);
        this.line([x - arm, y + arm], [x + arm, y - arm], colour, 2);
        this.pen.globalAlpha = 1;
        continue;
      }
      const hurt = body.$health[step] + body.$shield[step] < body.$health[before] + body.$shield[before] - 0.05;
      if (hurt) this.disc(spot, radius + 3, null, this.ink("hit"), 2.5);
      this.disc(spot, radius, body.side ? this.ink("paper") : colour, colour, 2);
      this.gauge(spot, radius, body, step);
      const text = this.sign(body);
      this.label(text, spot, body.side ? colour : this.ink("paper"), Math.min(radius * 1.2, 15));
      this.pen.globalAlpha = 1;
    }
  }

  sign(body) {  // its number on its side, as actions name it, and its kind where there are several
    const own = this.replay.bodies.filter((other) => other.side === body.side);
    const kind = own.some((other) => other.name !== body.name) ? body.name[0].toUpperCase() : "";
    return `${kind}${own.indexOf(body)}`;
  }

  gauge([x, y], radius, body, step) {
    const wide = Math.max(2 * radius, 12), left = x - wide / 2, draw = (share, row, colour) => {
      this.line([left, row], [left + wide, row], this.ink("line"), 3);
      if (share > 0) this.line([left, row], [left + wide * Math.min(share, 1), row], colour, 3);
    };
    draw(body.$health[step] / (body.health || 1), y - radius - 5, this.ink("health"));
    if (body.shield > 0) draw(body.$shield[step] / body.shield, y - radius - 10, this.ink("shield"));
  }

  particles(t, step) {
    const open = (body) => body.side === 2 && body.name !== "obstacle";  // above the agents, which may lie on it
    for (const body of [...this.replay.bodies].sort((a, b) => open(a) - open(b) || b.side - a.side)) {
      const spot = this.at(between(body.$x, t), between(body.$y, t)), colour = this.ink(["ours", "theirs", "nobody"][body.side]);
      if (body.side < 2) for (let k = Math.max(step - 10, 0); k < step; k++) {
        this.pen.globalAlpha = 0.15 + 0.05 * (k - step + 10);
        this.line(this.at(body.$x[k], body.$y[k]), k + 1 < step ? this.at(body.$x[k + 1], body.$y[k + 1]) : spot, colour, 2);
      }
      this.pen.globalAlpha = 1;
      this.disc(spot, body.size * this.unit, open(body) ? null : colour, this.ink(open(body) ? "ink" : "paper"), 2, open(body) ? [5, 4] : []);
      const text = body.side === 0 ? String(body.agent) : body.name;
      const inside = body.side === 0 && body.size * this.unit > 7;
      this.label(text, inside ? spot : [spot[0], spot[1] - body.size * this.unit - 8], inside ? this.ink("paper") : this.ink("ink"), 11);
    }
  }

  cells(t, step) {  // a board, whose cells have whole numbers in their middle
    const [left, bottom, right, top] = this.area;
    for (let x = left; x <= right + 0.01; x++) this.line(this.at(x, bottom), this.at(x, top), this.ink("line"), 1);
    for (let y = bottom; y <= top + 0.01; y++) this.line(this.at(left, y), this.at(right, y), this.ink("line"), 1);
    for (const body of [...this.replay.bodies].sort((a, b) => b.side - a.side)) {
      if (!body.$there || body.$there[step]) this.cell(body, this.at(between(body.$x, t), between(body.$y, t)), step);
    }
  }

  cell(body, [x, y], step) {
    const radius = 0.4 * this.unit, nobodys = body.side === 2, size = Math.min(radius, 13);
    const colour = this.ink(["ours", "theirs", "nobody"][body.side]), ink = this.ink(nobodys ? "ink" : "paper");
    const marked = body.$mark && body.$mark[step], edge = marked ? this.ink("hit") : colour;
    if (body.$heading && body.$heading[step] >= 0) {
      const turn = body.$heading[step] * Math.PI / 2;
      this.line([x, y], [x + 1.3 * radius * Math.sin(turn), y - 1.3 * radius * Math.cos(turn)], colour, 4);
    }
    this.disc([x, y], radius, nobodys ? this.ink("paper") : colour, edge, marked ? 4 : 2, [], nobodys);
    if (body.agent >= 0) this.label(String(body.agent), [x, y - (body.name ? 0.3 * radius : 0)], ink, size);
    this.label(body.name, [x, y + (body.agent >= 0 ? 0.45 * radius : 0)], ink, Math.min(size, 3 * radius / Math.max(body.name.length, 1)));
  }

  robot(t, step) {
    const [torso] = this.replay.bodies, deep = "$y0" in torso;
    const slant = ([x, y, z]) => [x + 0.5 * y, z + 0.3 * y];
    const flat = (body, end) => ["x", "y", "z"].map((axis) => (body[`$${axis}${end}`] ? between(body[`$${axis}${end}`], t) : 0));
    const eye = [0, 1].map((k) => (flat(torso, 0)[k] + flat(torso, 1)[k]) / 2).concat(0);
    const spot = (point) => this.at(...slant(point.map((value, k) => value - eye[k])));
    const rows = deep ? [-3, -2, -1, 0, 1, 2, 3] : [0], grid = this.ink("line"), reach = Math.ceil(this.size[0] / this.unit / 2) + 3;
    for (const row of rows) {
      const y = deep ? Math.round(eye[1]) + row : 0;
      this.line(spot([eye[0] - reach, y, 0]), spot([eye[0] + reach, y, 0]), grid, row || deep ? 1 : 2);
    }
    for (let x = Math.floor(eye[0]) - reach; x <= eye[0] + reach; x++) {
      const y = Math.round(eye[1]);
      if (deep) this.line(spot([x, y - 3, 0]), spot([x, y + 3, 0]), grid, 1);
      else this.line(spot([x, 0, 0]), spot([x, 0, -0.06]), grid, 2);
      if (!deep) this.label(`${x} m`, spot([x, 0, -0.14]), this.ink("soft"), 11);
    }
    const depth = (body) => (deep ? between(body.$y0, t) + between(body.$y1, t) : 0);
    for (const body of [...this.replay.bodies].sort((a, b) => depth(b) - depth(a))) {
      const ends = [spot(flat(body, 0)), spot(flat(body, 1))], width = Math.max(2 * body.size * this.unit, 3);
      const colour = body.agent < 0 ? this.ink("nobody") : this.ink(`agent${body.agent % 6}`);
      if (body.$ground[step]) this.line(...ends, this.ink("hit"), width + 6);
      this.line(...ends, colour, width);
      this.disc(ends[0], width / 2, colour);  // a ball's ends are one point, of which no line is drawn
    }
  }
}

// The player.

function element(name, facts = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(facts)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...inside);
  return made;
}

function action(replay, agent, step) {
  const { head, actions, bodies } = replay;
  if (!step) return "–";
  if (head.actions > 1 || head.action_step !== 1) return actions[agent].map((values) => values[step - 1].toFixed(2).replace("-", "−")).join("  ");
  const moves = head.moves || [], chosen = Math.round(actions[agent][0][step - 1]);
  if (chosen < moves.length) return moves[chosen];
  const foes = bodies.filter((body) => body.side === 1), foe = foes[chosen - moves.length];
  return foe ? `attacks ${foe.name} ${chosen - moves.length}` : String(chosen);
}

const sum = (value) => value.toFixed(2).replace("-", "−");

function ending(head) {
  const stored = head.stored === undefined || head.stored === null ? "" : head.same
    ? `, the stored episode (return ${sum(head.stored)})` : `, not the stored episode, which returned ${sum(head.stored)}`;
  return `${head.end}, return ${sum(head.return)}${stored}`;
}

class Player {
  constructor(place, replays) {
    this.replays = replays;
    this.last = Math.max(...replays.map((replay) => replay.T));
    this.t = 0;
    this.speed = 1;
    this.playing = false;
    const area = extent(replays);
    this.views = replays.map((replay) => this.view(replay, area));
    place.append(element("div", { className: "stage" }, ...this.views.map((view) => view.box)), this.controls(replays));
    place.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.show()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.show());
    this.show();
  }

  view(replay, area) {
    const { head } = replay;
    const label = `${head.title} on ${head.task} ${head.quality}, episode ${head.episode}: ${replay.T} steps, ${ending(head)}`;
    const canvas = element("canvas", { role: "img", "aria-label": label });
    const cells = replay.actions.map(() => element("td"));
    const rows = cells.map((cell, agent) => {
      const name = element("th", { scope: "row", className: head.kind === "robot" ? `agent${agent % 6}` : "" }, `agent ${agent}`);
      return element("tr", {}, name, cell);
    });
    const now = element("p", { className: "now" }), end = element("p", { className: "end" });
    const table = element("table", {}, element("caption", {}, "Last actions"), element("tbody", {}, ...rows));
    const facts = element("div", { className: "facts" }, element("h3", {}, head.title), now, end, table);
    return { box: element("div", { className: "view" }, canvas, facts), picture: new Picture(canvas, replay, area), replay, cells, now, end };
  }

  controls([first]) {
    const button = (text, act, label = text) => element("button", { type: "button", "aria-label": label, onclick: act }, text);
    this.toggle = button("Play", () => this.play(!this.playing));
    this.slider = element("input", { type: "range", min: 0, max: this.last, step: 1, value: 0, "aria-label": "Step of the episode" });
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    const speeds = [0.25, 0.5, 1, 2, 4, 8].map((speed) => element("option", { value: speed, selected: speed === 1 }, `${speed} ×`));
    const select = element("select", { "aria-label": "Speed", onchange: () => { this.speed = Number(select.value); } }, ...speeds);
    this.counter = element("output", {});
    const parts = [this.toggle, button("Start", () => this.go(0)), button("−1", () => this.go(this.step - 1), "A step back")];
    parts.push(button("+1", () => this.go(this.step + 1), "A step on"), button("End", () => this.go(this.last)));
    parts.push(this.slider, this.counter, select);
    if (first.bodies.some((body) => body.side === 0 && body.sight > 0)) parts.push(this.eyes(first));
    return element("div", { className: "controls", role: "group", "aria-label": "Player" }, ...parts);
  }

  eyes(first) {
    const options = ["everything", ...first.actions.map((_, agent) => `agent ${agent}`)].map((text, k) => element("option", { value: k - 1 }, text));
    const select = element("select", { "aria-label": "What is seen by" }, ...options);
    select.addEventListener("change", () => {
      for (const view of this.views) view.picture.seen = Number(select.value);
      this.show();
    });
    return select;
  }

  get step() { return Math.round(this.t); }

  key(event) {
    const own = event.target.tagName, steps = { ArrowLeft: this.step - 1, ArrowRight: this.step + 1, Home: 0, End: this.last };
    if (event.ctrlKey || event.metaKey || event.altKey || own === "SELECT" || own === "INPUT" && event.key !== " ") return;
    if (event.key === " " && own !== "BUTTON") this.play(!this.playing);
    else if (event.key in steps) this.go(steps[event.key]);
    else return;
    event.preventDefault();
  }

  go(step) {
    this.play(false);
    this.t = Math.min(Math.max(step, 0), this.last);
    this.show();
  }

  play(on) {
    if (on === this.playing) return;
    this.playing = on;
    this.toggle.textContent = this.toggle.ariaLabel = on ? "Pause" : "Play";
    if (!on) { this.t = this.step; this.show(); return; }
    if (this.t >= this.last) this.t = 0;
    let before;  // of the first frame, whose time may lie before this call
    const tick = (now) => {
      if (!this.playing) return;
      this.t = Math.min(this.t + (now - (before ?? now)) / 1000 * this.speed / this.replays[0].head.tick, this.last);
      before = now;
      this.show();
      if (this.t >= this.last) this.play(false);
      else requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  show() {
    const t = still.matches || !this.playing ? this.step : this.t;
    this.slider.value = this.step;
    this.slider.setAttribute("aria-valuetext", `step ${this.step} of ${this.last}`);
    this.counter.textContent = `${this.step} / ${this.last}`;
    for (const { picture, replay, cells, now, end } of this.views) {
      const own = Math.min(t, replay.T), step = Math.min(this.step, replay.T);
      picture.draw(own);
      now.textContent = `return so far ${sum(replay.returns[step])}`;
      end.textContent = step === replay.T ? ending(replay.head) : "";
      cells.forEach((cell, agent) => { cell.textContent = action(replay, agent, step); });
    }
  }
}

for (const place of document.querySelectorAll(".replays")) {
  const texts = [...place.querySelectorAll("script")].map((script) => script.textContent);
  Promise.all(texts.map(unpack)).then((replays) => new Player(place, replays)).catch((error) => {
    place.append(element("p", { className: "refused", role: "alert" }, `This replay cannot be played: ${error.message}.`));
  });
}
}
