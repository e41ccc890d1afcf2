// One picture that answers to the hand: shown by a widget whose kernel draws it, or on a page from what was drawn ahead.
//
// It knows no explorer.  A picture is a backdrop and a front (SVG text of one size), words (HTML), and handles: what a
// hand can take hold of, and the fields that it sets.  Faces that are marked data-cell="n,c,…" data-set="k" light their
// set under the pointer; `cells` holds every cell's value, and how sets follow from places, for the numbers.
// Exports: the widget (default), mount(element, data) for pages, and the arithmetic, which tests hold equal to Python's.

// Arithmetic ------------------------------------------------------------------------------------------------

/** Which cells share their statistics: numbers from 0 in the order of the first cells, row by row.
 *  view: the shape with groups as an axis of their own; dims: the axes of it that a set spans. */
export function labelsOf(view, dims) {
  const sets = view.map((size, axis) => (dims.includes(axis) ? 1 : size));
  const strides = new Array(view.length);
  for (let axis = view.length - 1, step = 1; axis >= 0; axis--) {
    strides[axis] = sets[axis] === 1 ? 0 : step;
    step *= sets[axis];
  }
  const labels = new Int32Array(view.reduce((a, b) => a * b, 1)), at = new Array(view.length).fill(0);
  for (let i = 0, label = 0; i < labels.length; i++) {
    labels[i] = label;
    for (let axis = view.length - 1; axis >= 0; axis--) {
      label += strides[axis];
      if (++at[axis] < view[axis]) break;
      label -= strides[axis] * view[axis];
      at[axis] = 0;
    }
  }
  return labels;
}

/** The view of a shape and the axes of it that a set spans, from a row of the methods' table: `over` names roles.
 *  roles: "sample", "channel" or "position" of each axis; channels become two axes, groups and channels of a group. */
export function viewOf({ over, grouped }, shape, roles, groups = 1) {
  const view = [], dims = [];
  const add = (size, role) => { if (over.includes(role)) dims.push(view.length); view.push(size); };
  shape.forEach((size, axis) => {
    if (roles[axis] !== "channel") return add(size, roles[axis]);
    const parts = grouped ? groups : 1;
    add(parts, grouped ? "group" : "channel");
    add(size / parts, "channel");
  });
  return { view, dims };
}

/** Size, mean and biased variance of every set; for a method that subtracts no mean, 0 and the mean square. */
export function statistics(values, labels, centred = true) {
  const sets = labels.reduce((most, label) => Math.max(most, label + 1), 0);
  const size = new Int32Array(sets), mean = new Float64Array(sets), variance = new Float64Array(sets);
  for (const label of labels) size[label]++;
  if (centred) {
    for (let i = 0; i < labels.length; i++) mean[labels[i]] += values[i] / size[labels[i]];
  }
  for (let i = 0; i < labels.length; i++) {
    const away = values[i] - mean[labels[i]];
    variance[labels[i]] += (away * away) / size[labels[i]];
  }
  return { size, mean, variance };
}

/** The normalized values: (x − mean) / √(variance + ε) · weight + bias. */
export function normalize(values, labels, { eps = 1e-5, weight = 1, bias = 0, centred = true } = {}) {
  const { mean, variance } = statistics(values, labels, centred);
  return Float64Array.from(values, (value, i) =>
    ((value - mean[labels[i]]) / Math.sqrt(variance[labels[i]] + eps)) * weight + bias);
}

/** What the values have become after a step: "centred", "scaled" or "affine". */
export function valuesAfter(values, labels, { step, eps, weight, bias }, centred = true) {
  if (step === "centred") {
    const { mean } = statistics(values, labels, centred);
    return Float64Array.from(values, (value, i) => value - mean[labels[i]]);
  }
  return normalize(values, labels, step === "affine" ? { eps, weight, bias, centred } : { eps, centred });
}

/** Where a cell stands among all cells in order; place: its index along each axis. */
const flat = (place, shape) => place.reduce((at, v, axis) => at * shape[axis] + v, 0);

function decode(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

/** A number in words, as `picture.text.number` has it. */
function words(value, digits = 4) {
  if (!Number.isFinite(value)) return String(value).replace("-", "−");
  const rounded = Number(value.toPrecision(digits)), size = Math.abs(rounded);
  const text = size >= 1e3 && size < 1e6 ? rounded.toLocaleString("en-US", { maximumFractionDigits: 2 }) : String(rounded);
  return text.replace("-", "−");
}

// Themes ----------------------------------------------------------------------------------------------------

const themed = new Set();
let watching = false;

function background(element) {
  for (let one = element; one; one = one.parentElement || one.getRootNode().host) {
    const color = getComputedStyle(one).backgroundColor;
    const parts = color.match(/[\d.]+/g)?.map(Number) ?? [];
    if (parts.length >= 3 && (parts[3] ?? 1) > 0.5) return parts;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches && /dark/.test(getComputedStyle(document.documentElement).colorScheme)
    ? [18, 18, 18] : [255, 255, 255];
}

function tint(root) {
  const [r, g, b] = background(root.parentElement ?? root).map((v) => v / 255);
  const theme = 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.5 ? "dark" : "light";
  if (root.dataset.nvTheme !== theme) root.dataset.nvTheme = theme;
}

/** Keeps light or dark of a root in line with what is behind it; gives the function that ends that. */
function follow(root) {
  themed.add(root);
  tint(root);
  if (!watching) {
    watching = true;
    const all = () => requestAnimationFrame(() => themed.forEach(tint));
    const late = () => { all(); setTimeout(all, 120); setTimeout(all, 700); };  // style sheets come after attributes
    const watch = new MutationObserver(late), attributes = { attributes: true };
    watch.observe(document.documentElement, attributes);
    watch.observe(document.body, attributes);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", late);
  }
  return () => themed.delete(root);
}

// Narrow screens -------------------------------------------------------------------------------------------

const LEAST = 0.75;  // of a picture's own size: below it 12 px are less than 9, so its parts go one under another
const MOST_GROWN = 1.6;  // what of its words then is still too small grows, as far as its neighbours bear

const around = (boxes) => [0, 1, 2, 3].map((k) => Math[k < 2 ? "min" : "max"](...boxes.map((box) => box[k])));

/** Where boxes [left, top, right, bottom] go on a sheet of some width: side by side where there is room, else below. */
function placed(boxes, most) {
  const gap = 4, wide = Math.max(most, ...boxes.map(([left, , right]) => right - left + 2 * gap));
  let x = gap, y = gap, row = 0;
  const places = boxes.map((box) => {
    const [left, top, right, bottom] = box;
    if (x > gap && x + right - left + gap > wide) { x = gap; y += row + gap; row = 0; }
    const place = { box, by: [x - left, y - top] };
    x += right - left + 2 * gap;
    row = Math.max(row, bottom - top);
    return place;
  });
  return { places, width: wide, height: y + row + gap };
}

// The picture -----------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

function make(tag, name, parent) {
  const element = document.createElement(tag);
  element.className = name;
  parent?.append(element);
  return element;
}

/** A longest common subsequence of two lists, as pairs of places in them. */
function common(old, now) {
  let first = 0, ends = 0;
  const least = Math.min(old.length, now.length), pairs = [];
  while (first < least && old[first] === now[first]) pairs.push([first, first++]);
  while (ends < least - first && old.at(-1 - ends) === now.at(-1 - ends)) ends++;
  const rows = old.length - ends, columns = now.length - ends, wide = columns - first + 1;
  const most = new Uint16Array((rows - first + 1) * wide), at = (i, k) => (i - first) * wide + k - first;
  for (let i = rows - 1; i >= first; i--) {
    for (let k = columns - 1; k >= first; k--) {
      most[at(i, k)] = old[i] === now[k] ? most[at(i + 1, k + 1)] + 1 : Math.max(most[at(i + 1, k)], most[at(i, k + 1)]);
    }
  }
  for (let i = first, k = first; i < rows && k < columns;) {
    if (old[i] === now[k]) pairs.push([i++, k++]);
    else if (most[at(i + 1, k)] >= most[at(i, k + 1)]) i++;
    else k++;
  }
  for (let back = ends; back > 0; back--) pairs.push([old.length - back, now.length - back]);
  return pairs;
}

/** The outline of faces given as path data: the edges that only one of them has, as path data. */
function outline(paths) {
  const edges = new Map();
  for (const path of paths) {
    const corners = path.slice(1, -1).split("L");
    corners.forEach((corner, i) => {
      const next = corners[(i + 1) % corners.length];
      const key = corner < next ? `${corner}L${next}` : `${next}L${corner}`;
      edges.set(key, (edges.get(key) ?? 0) + 1);
    });
  }
  let d = "";
  for (const [edge, count] of edges) if (count === 1) d += `M${edge}`;
  return d;
}

/** The next value that a page has of a field, up or down; round the end where the field wraps. */
function stop({ stops, value, wraps }, by) {
  const beyond = stops.filter((one) => (one - value) * by > 0), some = beyond.length ? beyond : wraps ? stops : [value];
  return by > 0 ? Math.min(...some) : Math.max(...some);
}

/** Whether a handle is dragged by how far, and not set to where the hand is. */
const turns = (handle) => Object.keys(handle.drag ?? {}).length > 0;

class Picture {
  /** root: an element to fill; move: called with {field: value} when a hand has moved something. */
  constructor(root, move) {
    this.move = move;
    this.root = root;
    this.stage = make("div", "nv-stage", root);
    this.backdrop = make("div", "nv-backdrop", this.stage);
    this.front = make("div", "nv-front", this.stage);
    this.light = document.createElementNS(SVG, "svg");
    this.light.setAttribute("class", "nv-light nv-over");
    this.light.setAttribute("aria-hidden", "true");
    this.lines = {};
    for (const name of ["halo", "set", "rim", "ring", "cell", "mark"]) {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", `nv-${name}`);
      this.light.append(path);
      this.lines[name] = path;
    }
    this.stage.append(this.light);
    this.tip = make("div", "nv-tip", this.stage);
    this.tip.hidden = true;
    this.tip.setAttribute("aria-hidden", "true");
    this.words = make("div", "nv-words", root);
    this.handles = [];
    this.parts = [];
    this.room = 0;  // px across, once it is known
    this.holds = [];
    this.width = this.height = 1;
    this.lit = null;
    this.timings = [];
    // Asked here alone: to ask after a change of the picture would have the page laid out twice
    new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width === this.room) return;
      this.room = contentRect.width;
      this.words.style.minHeight = "";
      const folds = this.room && this.room < LEAST * this.width;
      if (!folds && !this.fold) return;
      this.unfold();
      this.fit(true);
      this.hold(this.handles);
      this.draw();
    }).observe(this.root);
    for (const kind of ["pointermove", "pointerdown", "pointerup", "pointercancel", "pointerleave"]) {
      this.stage.addEventListener(kind, (event) => this[kind](event));
    }
  }

  /** Shows what is given; what is left out stays. */
  show({ backdrop, front, handles, cells, words, mark, parts }) {
    if (parts !== undefined) this.parts = parts;
    if (!this.steady) this.words.style.minHeight = "";
    this.steady = false;
    // A new picture is flat until it is folded: the page must not get shorter meanwhile, and scroll
    if (this.fold) this.stage.style.minHeight = `${this.stage.offsetHeight}px`;
    if (backdrop !== undefined) this.backdrop.innerHTML = backdrop;
    if (front !== undefined) this.put(front);
    const svg = this.front.querySelector("svg");
    if (svg && front !== undefined) {
      const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
      if (width !== this.width || height !== this.height) this.size(width, height);
      this.fit(backdrop !== undefined);
    }
    this.stage.style.minHeight = "";
    this.front.classList.toggle("nv-over", this.backdrop.childElementCount > 0);
    if (cells !== undefined) {
      this.cells = cells && cells.shape ? cells : null;
      this.numbers = null;
    }
    if (backdrop !== undefined || (front !== undefined && !this.backdrop.childElementCount)) this.index = null;
    if (words !== undefined && this.words.innerHTML !== words) this.say(words);
    if (handles !== undefined) this.hold(handles);
    this.marked = mark ?? null;
    this.draw();
    if (this.dragging) this.dragging.sent = false;
  }

  /** A front: SVG text, or its head and a list of pieces of which those that are there already stay.
   *  text: gives a piece's SVG, where the list names pieces by numbers. */
  put(front) {
    const { head, pieces, text = (one) => one } = front, svg = this.front.querySelector("svg"), before = this.drawn, old = before?.pieces;
    const wrapped = (some) => some.map((one) => `<g class="nv-piece">${text(one)}</g>`).join("");
    this.drawn = front;
    if (!pieces) this.front.innerHTML = front;
    else if (!old || !svg || this.fold || before.head !== head) {
      this.front.innerHTML = `${head}${wrapped(pieces)}</svg>`;
      this.kept = new Map([...this.front.querySelectorAll("svg > .nv-piece")].map((group, i) => [pieces[i], group]));
    } else {
      const groups = [...svg.querySelectorAll(":scope > .nv-piece")], stay = common(old, pieces);
      const places = new Map(stay.map(([i, k]) => [k, groups[i]])), staying = new Set(places.values());
      groups.forEach((group) => { if (!staying.has(group)) group.remove(); });
      const made = this.made(pieces.filter((_, k) => !places.has(k)), wrapped);
      let next = null;  // from the end: each goes before the one that follows it
      for (let k = pieces.length - 1; k >= 0; k--) {
        const group = places.get(k) ?? svg.insertBefore(made.pop(), next);
        next = group;
      }
    }
  }

  /** Elements of pieces: those that were there before and are free, and new ones, parsed in one go. */
  made(pieces, wrapped) {
    const used = new Set(), fresh = document.createElementNS(SVG, "g");
    const found = pieces.map((one) => {
      const group = this.kept.get(one), free = group && !group.isConnected && !used.has(group);
      return free ? used.add(group) && group : null;
    });
    fresh.innerHTML = wrapped(pieces.filter((_, i) => !found[i]));
    const parsed = [...fresh.children];
    return found.map((group, i) => {
      if (!group) this.kept.set(pieces[i], group = parsed.shift());
      return group;
    });
  }

  size(width, height) {
    this.unfold();
    this.width = width;
    this.height = height;
    this.light.setAttribute("viewBox", `0 0 ${width} ${height}`);
    // As wide as there is room, as long as controls and sentence find theirs on a laptop's screen too
    const fits = `(100vh - 310px) * ${(width / height).toFixed(4)}`;
    this.stage.style.maxWidth = `max(${Math.round(0.7 * width)}px, min(${Math.round(1.7 * width)}px, ${fits}))`;
  }

  /** On a narrow screen the parts of the picture go one under another.  anew: the backdrop is another one. */
  fit(anew) {
    const { room } = this;
    if (!room || room >= LEAST * this.width) return this.unfold();
    const layers = [this.backdrop, this.front].map((layer) => layer.querySelector("svg"));
    if (anew || !this.below) this.below = this.leaves(layers[0]);
    const leaves = [...this.below, ...this.leaves(layers[1])];
    this.fold = this.parts.length
      ? placed(this.parts, Math.min(this.width, room / LEAST))
      : { places: [{ box: [0, 0, this.width, this.height], by: [0, 0] }], width: this.width, height: this.height };
    this.stage.style.setProperty("--nv-grow", Math.min(MOST_GROWN, Math.max(1, (LEAST * this.fold.width) / room)).toFixed(3));
    this.stage.classList.add("nv-folded");
    for (const { element, box, turned } of leaves) {
      const [x, y] = this.shifted((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1);
      element.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)}) ${turned}`.trim());
    }
    for (const svg of [...layers, this.light]) this.sheet(svg, this.fold);
    for (const { element, turned } of leaves) if (element.tagName === "text" && !turned) this.inside(element);
    return undefined;
  }

  /** Keeps words that have grown on the sheet: squeezes a line that is a bit too long, breaks a longer one, else moves it. */
  inside(text) {
    const [dx, dy] = text.getAttribute("transform").match(/[\d.-]+/g).map(Number);
    const room = this.fold.width - 8, length = text.getComputedTextLength();
    if (length > room && length <= 1.2 * room) {
      text.setAttribute("textLength", room);
      text.setAttribute("lengthAdjust", "spacingAndGlyphs");
    } else if (length > room && !text.childElementCount) {
      const whole = text.textContent, lines = [""], most = (whole.length * room) / length;
      for (const word of whole.split(" ")) {
        if (lines.at(-1).length + word.length > most) lines.push("");
        lines[lines.length - 1] += `${word} `;
      }
      text.whole = whole;
      text.replaceChildren(...lines.map((line, i) => {
        const span = document.createElementNS(SVG, "tspan");
        span.setAttribute("x", text.getAttribute("x"));
        if (i) span.setAttribute("dy", "1.2em");
        span.textContent = line.trim();
        return span;
      }));
    }
    const { x, width } = text.getBBox(), left = Math.max(2, Math.min(x + dx, this.fold.width - 2 - width));
    text.setAttribute("transform", `translate(${(left - x).toFixed(1)} ${dy})`);
  }

  unfold() {
    if (!this.fold) return;
    this.fold = null;
    this.stage.classList.remove("nv-folded");
    for (const element of this.stage.querySelectorAll("svg [transform^=translate]")) {
      const turned = element.getAttribute("transform").replace(/^translate\([^)]*\) ?/, "");
      turned ? element.setAttribute("transform", turned) : element.removeAttribute("transform");
      if (element.whole) element.textContent = element.whole;
      for (const name of ["textLength", "lengthAdjust"]) element.removeAttribute(name);
    }
    this.below = null;
    for (const svg of this.stage.querySelectorAll("svg")) this.sheet(svg, this);
  }

  sheet(svg, { width, height }) {
    if (!svg) return;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (svg !== this.light) {
      svg.setAttribute("width", width);
      svg.setAttribute("height", height);
    }
  }

  /** What is drawn, piece by piece, with the box of each in the picture's own pixels. */
  leaves(svg) {
    if (!svg) return [];
    const frame = svg.getBoundingClientRect(), [, , width] = svg.getAttribute("viewBox").split(" ");
    const scale = width / frame.width, found = [];
    for (const element of svg.querySelectorAll("path, text, image, use, rect:not([width='100%'])")) {
      if (element.closest("defs")) continue;
      const { left, top, right, bottom } = element.getBoundingClientRect();
      const box = [left - frame.left, top - frame.top, right - frame.left, bottom - frame.top].map((v) => v * scale);
      found.push({ element, box, turned: element.getAttribute("transform") ?? "" });
    }
    return found;
  }

  /** By how much a place of the picture (way 1) or of the folded sheet (way −1) is moved to get to the other. */
  shifted(x, y, way) {
    if (!this.fold) return [0, 0];
    let best = null, least = Infinity;
    for (const { box: [left, top, right, bottom], by } of this.fold.places) {
      const [u, v] = way > 0 ? [x, y] : [x - by[0], y - by[1]];
      const away = Math.hypot(Math.max(left - u, 0, u - right), Math.max(top - v, 0, v - bottom));
      if (away < least) { least = away; best = by; }
    }
    return [way * best[0], way * best[1]];
  }

  /** Path data of the picture as it lies on the folded sheet, outline by outline. */
  folded(d) {
    if (!this.fold) return d;
    return d.replace(/M([\d.-]+) ([\d.-]+)[^M]*/g, (part, x, y) => {
      const [dx, dy] = this.shifted(Number(x), Number(y), 1);
      return part.replace(/([\d.-]+) ([\d.-]+)/g, (_, u, v) => `${(Number(u) + dx).toFixed(1)} ${(Number(v) + dy).toFixed(1)}`);
    });
  }

  /** Puts the words in place; the sentence's own element stays, for a screen reader hears what changes in it. */
  say(html) {
    const fresh = document.createElement("div");
    fresh.innerHTML = html;
    const old = this.words.querySelector("[role=status]"), now = fresh.querySelector("[role=status]");
    if (old && now) {
      old.innerHTML = now.innerHTML;
      while (old.nextSibling) old.nextSibling.remove();
      while (now.nextSibling) this.words.append(now.nextSibling);
    } else {
      this.words.replaceChildren(...fresh.childNodes);
    }
  }

  // What can be held -----------------------------------------------------------------------------------------

  hold(handles) {
    this.handles = handles;
    if (this.holds.length !== handles.length) {
      this.holds.forEach((hold) => hold.remove());
      this.holds = handles.map((_, i) => {
        const hold = make("div", "nv-hold", null);
        this.stage.insertBefore(hold, this.light);
        hold.tabIndex = 0;
        hold.dataset.lmSuppressShortcuts = "true";  // JupyterLab's own keys
        hold.addEventListener("keydown", (event) => this.key(event, i));
        return hold;
      });
    }
    handles.forEach((handle, i) => {
      const hold = this.holds[i], [x, y, right, bottom] = this.boxOf(handle), share = (v, of) => `${(100 * v) / of}%`;
      const { width, height } = this.fold ?? this;
      Object.assign(hold.style, {
        left: share(x, width), top: share(y, height), width: share(right - x, width), height: share(bottom - y, height),
      });
      hold.classList.toggle("nv-track", !handle.cells);
      hold.classList.toggle("nv-turn", turns(handle));
      this.describe(handle, hold);
    });
  }

  /** Where a handle lies on the sheet: left, top, right, bottom; folded, around all parts that it reaches into. */
  boxOf({ box: [x, y, width, height] }) {
    const whole = [x, y, x + width, y + height];
    if (!this.fold) return whole;
    const parts = this.fold.places.map(({ box, by }) => {
      const [left, top, right, bottom] = whole.map((v, k) => (k < 2 ? Math.max(v, box[k]) : Math.min(v, box[k])));
      return right - left > 4 && bottom - top > 4 && [left + by[0], top + by[1], right + by[0], bottom + by[1]];
    }).filter(Boolean);
    return parts.length ? around(parts) : whole;
  }

  describe(handle, hold) {
    const told = handle.fields.map((field) => `${field.label} ${field.texts?.[field.value] ?? field.value}`).join(", ");
    const set = (name, value) => hold.setAttribute(name, value);
    set("aria-keyshortcuts", Object.keys(handle.keys).join(" "));
    if (handle.fields.length === 1) {
      const [field] = handle.fields;
      set("role", "slider");
      set("aria-label", handle.name);
      set("aria-valuemin", field.low);
      set("aria-valuemax", field.high);
      set("aria-valuenow", field.value);
      set("aria-valuetext", told);
    } else {
      set("role", "application");
      set("aria-roledescription", "picture with a cursor");
      set("aria-label", `${handle.name}: ${told}. Arrow keys move it${handle.shifted ? ", with Shift too" : ""}.`);
    }
  }

  key(event, i) {
    const handle = this.handles[i], name = (event.shiftKey ? "Shift+" : "") + event.key;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    let change = null;
    if (handle.keys[name]) {
      const [at, by] = handle.keys[name], field = handle.fields.find((one) => one.name === at);
      change = [field, field.stops ? stop(field, by) : field.value + by * field.step];
    } else if ((event.key === "Home" || event.key === "End") && handle.fields.length === 1) {
      const [field] = handle.fields;
      change = [field, event.key === "Home" ? field.low : field.high];
    }
    if (!change) return;
    event.preventDefault();
    event.stopPropagation();
    this.started = performance.now();
    this.set(handle, { [change[0].name]: change[1] });
  }

  /** Moves fields of a handle; what is new is told. */
  set(handle, values) {
    const changes = {};
    for (const field of handle.fields) {
      if (!(field.name in values)) continue;
      let value = values[field.name];
      if (field.wraps) {
        const span = field.high - field.low;
        value = field.low + ((((value - field.low) % span) + span) % span);
      }
      value = Math.min(field.high, Math.max(field.low, value));
      value = Number((field.low + Math.round((value - field.low) / field.step) * field.step).toFixed(9));
      if (value !== field.value) changes[field.name] = field.value = value;
    }
    if (!Object.keys(changes).length) return;
    this.describe(handle, this.holds[this.handles.indexOf(handle)]);
    // The words keep the lines that they have: else the page below would jump, and be painted anew, at every key
    this.words.style.minHeight = `${Math.ceil(this.words.getBoundingClientRect().height)}px`;
    this.steady = true;
    this.move(changes, handle);
  }

  /** A pointer's place in the picture's own pixels, folded or not. */
  place(event) {
    const box = this.stage.getBoundingClientRect(), { width, height } = this.fold ?? this;
    const [x, y] = [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
    const [dx, dy] = this.shifted(x, y, -1);
    return [x + dx, y + dy];
  }

  /** The face under the pointer, looked for beneath whatever lies over it. */
  face(event) {
    const here = this.stage.getRootNode().elementsFromPoint?.(event.clientX, event.clientY) ?? [];
    for (const element of here) {
      if (!this.stage.contains(element)) continue;
      const face = element.closest("[data-cell]");
      if (face) return face;
      if (element.querySelector?.(":scope > title")) return element;
    }
    return null;
  }

  /** The handle of a place, and what it would be set to there. */
  grasp(event) {
    const [x, y] = this.place(event), cell = this.face(event)?.dataset.cell;
    for (const handle of this.handles) {
      if (handle.cells) {
        const numbers = cell?.split(",").map(Number);
        if (!numbers) continue;
        const skip = numbers.length - handle.fields.length;  // names begin with what no field sets
        if (skip < 0 || (handle.only && numbers.slice(0, skip).join() !== handle.only)) continue;
        return [handle, Object.fromEntries(handle.fields.map((field, i) => [field.name, numbers[skip + i]]))];
      }
    }
    for (const handle of this.handles) {
      const [left, top, width, height] = handle.box, near = 8;  // px: the ends of a scale lie on its rim
      if (handle.cells || x < left - near || y < top - near) continue;
      if (x > left + width + near || y > top + height + near) continue;
      return [handle, this.along(handle, x, y)];
    }
    return null;
  }

  along(handle, x, y) {
    const values = {};
    for (const [name, points] of Object.entries(handle.at ?? {})) {
      const [axis, places] = points, here = axis === "x" ? x : y;
      values[name] = places.reduce((best, place) => (Math.abs(place[0] - here) < Math.abs(best[0] - here) ? place : best))[1];
    }
    return values;
  }

  pointerdown(event) {
    if (event.button > 0) return;
    const grasped = this.grasp(event);
    this.lightUp(event);
    if (!grasped) return;
    const [handle, values] = grasped, i = this.handles.indexOf(handle);
    this.started = performance.now();
    this.dragging = { i, id: event.pointerId, from: this.place(event), begun: handle.fields.map((field) => field.value) };
    try { this.stage.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone already */ }
    this.holds[i].focus({ preventScroll: true });
    if (event.pointerType === "mouse") event.preventDefault();  // no selection of texts on the way
    this.set(handle, values);
  }

  pointermove(event) {
    this.lightUp(event);
    const drag = this.dragging;
    if (!drag || drag.id !== event.pointerId) return;
    const handle = this.handles[drag.i];
    if (!handle) return;
    const [x, y] = this.place(event);
    if (turns(handle)) {
      const values = {};
      handle.fields.forEach((field, i) => {
        const by = handle.drag[field.name];
        if (by) values[field.name] = drag.begun[i] + by[0] * (x - drag.from[0]) + by[1] * (y - drag.from[1]);
      });
      this.set(handle, values);
    } else if (handle.cells) {
      const grasped = this.grasp(event);
      if (grasped?.[0] === handle) this.set(handle, grasped[1]);
    } else {
      this.set(handle, this.along(handle, x, y));
    }
  }

  pointerup(event) {
    if (this.dragging?.id === event.pointerId) this.dragging = null;
    if (event.pointerType === "touch") this.dim();
  }

  pointercancel(event) { this.pointerup(event); }

  pointerleave() { if (!this.dragging) this.dim(); }

  // What is lit ------------------------------------------------------------------------------------------------

  /** Faces by panel: of every cell and of every set.  Made when first asked for. */
  faces() {
    if (this.index) return this.index;
    const panels = new Map();
    const whole = this.backdrop.childElementCount ? this.backdrop : this.front;
    for (const face of whole.querySelectorAll("[data-cell]")) {
      const name = face.parentNode.dataset?.panel ?? "";
      if (!panels.has(name)) panels.set(name, { cells: new Map(), sets: new Map(), of: new Map(), outlines: new Map() });
      const panel = panels.get(name), { cell, set } = face.dataset, d = face.getAttribute("d");
      const add = (map, key) => (map.get(key) ?? map.set(key, new Set()).get(key)).add(d);
      add(panel.cells, cell);
      add(panel.sets, set);
      panel.of.set(cell, set);
    }
    return (this.index = panels);
  }

  lightUp(event) {
    if (event.pointerType === "touch" && event.type === "pointermove" && !this.dragging) return;
    const began = performance.now(), face = this.face(event);
    const key = face?.dataset.cell ?? face;
    if (!face) return this.dim();
    if (key !== this.lit) {
      this.lit = key;
      this.restore();
      const title = face.querySelector(":scope > title");
      this.titled = title && [title, title.textContent];
      if (title) title.textContent = "";  // ours is there at once, the browser's would come later over it
      this.draw();
      const text = this.numbersOf(face, this.titled?.[1] ?? "");
      this.tip.textContent = text;
      this.tip.hidden = !text;
      this.timings.push(performance.now() - began);
      if (this.timings.length > 200) this.timings.shift();
    }
    const box = this.stage.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const left = Math.min(x + 14, box.width - this.tip.offsetWidth - 4), above = y - this.tip.offsetHeight - 12;
    this.tip.style.transform = `translate(${Math.max(0, left)}px, ${above > 0 ? above : y + 18}px)`;
    this.tip.style.left = this.tip.style.top = "0";
  }

  restore() {
    if (this.titled) this.titled[0].textContent = this.titled[1];
    this.titled = null;
  }

  dim() {
    if (this.lit === null) return;
    this.restore();
    this.lit = null;
    this.tip.hidden = true;
    this.draw();
  }

  draw() {
    let set = "", cell = "", mark = "";
    if (typeof this.lit === "string" || this.marked) {
      for (const panel of this.faces().values()) {
        const label = panel.of.get(this.lit) ?? (typeof this.lit === "string" && this.labelOf(this.lit));
        if (typeof this.lit === "string" && panel.sets.has(label)) {
          if (!panel.outlines.has(label)) panel.outlines.set(label, outline(panel.sets.get(label)));
          set += panel.outlines.get(label);
          cell += [...(panel.cells.get(this.lit) ?? [])].join("");
        }
        mark += [...(panel.cells.get(this.marked) ?? [])].join("");
      }
    }
    const put = (name, path) => {
      const d = this.folded(path);
      if (this.lines[name].getAttribute("d") !== d) this.lines[name].setAttribute("d", d);
    };
    put("halo", set);
    put("set", set);
    put("rim", set);
    put("ring", cell + mark);
    put("cell", cell);
    put("mark", mark);
  }

  /** Every cell's set and every set's statistics, computed when first asked for. */
  known() {
    if (this.numbers || !this.cells) return this.numbers;
    const { view, dims, values, centred, after } = this.cells, labels = labelsOf(view, dims), raw = decode(values);
    const become = after && valuesAfter(raw, labels, after, centred);
    return (this.numbers = { labels, raw, become, ...statistics(raw, labels, centred) });
  }

  labelOf(cell) {
    const known = this.known();
    return known ? String(known.labels[this.flat(cell)]) : undefined;
  }

  flat(cell) {
    return flat(cell.split(",").map(Number), this.cells.shape);
  }

  /** What is told of a face at once. */
  numbersOf(face, title) {
    const known = face.dataset.cell && this.known();
    if (!known) return title || (face.dataset.cell ? `${face.dataset.cell}; set ${face.dataset.set}` : "");
    const { cell } = face.dataset, at = this.flat(cell), set = known.labels[at], { letters, centred } = this.cells;
    const name = cell.split(",").map((v, axis) => `${letters[axis].toLowerCase()}=${v}`).join(" ");
    const moments = centred
      ? `μ = ${words(known.mean[set])}, σ² = ${words(known.variance[set])}` : `mean square ${words(known.variance[set])}`;
    const shown = known.become ? ` → ${words(known.become[at])}` : "";
    return `${name}: ${words(known.raw[at])}${shown}\nset ${set}: ${known.size[set]} cells, ${moments}`;
  }
}

// The widget ------------------------------------------------------------------------------------------------

/** Gives Jupyter's sliders, which have no names of their own for a screen reader, those that stand beside them. */
function nameControls(root) {
  for (const knob of root.querySelectorAll(".noUi-handle, .ui-slider-handle")) {
    const box = knob.closest(".widget-inline-hbox");
    const name = box?.querySelector(".widget-label")?.textContent.trim();
    const reading = box?.querySelector(".widget-readout")?.textContent.trim();
    if (!name) continue;
    const set = (attribute, value) => { if (knob.getAttribute(attribute) !== value) knob.setAttribute(attribute, value); };
    set("aria-label", name);
    if (reading) set("aria-valuetext", reading);
    if (knob.matches(".ui-slider-handle")) {  // of the classic page, which tells a screen reader nothing at all
      const along = Math.round(parseFloat(knob.style.left || knob.style.bottom || "0"));
      for (const [attribute, value] of [["role", "slider"], ["aria-valuenow", along], ["aria-valuemin", 0], ["aria-valuemax", 100]]) {
        set(attribute, String(value));
      }
    }
  }
}

/** Keeps the names of a root's controls; gives the function that ends that. */
function named(root) {
  let due = false;
  const later = () => {
    if (due) return;
    due = true;
    setTimeout(() => { due = false; nameControls(root); }, 60);
  };
  const watch = new MutationObserver(later);
  for (const row of root.children) {
    if (!row.querySelector(".nv-stage")) watch.observe(row, { subtree: true, childList: true, characterData: true });
  }
  later();
  setTimeout(later, 500);
  return () => watch.disconnect();
}

const PARTS = ["backdrop", "front", "handles", "cells", "words", "parts"];

function render({ model, el }) {
  el.classList.add("nv-picture");
  const root = el.closest(".normviz") ?? el;
  let count = 0, due = false;
  const picture = new Picture(el, (changes) => {
    model.set("hand", { changes, count: ++count });
    model.save_changes();
  });
  const all = () => Object.fromEntries(PARTS.map((part) => [part, model.get(part)]));
  picture.show(all());
  // One message of the kernel changes several traits: one picture for all of them, before the next frame
  const fresh = new Set();
  const changed = PARTS.map((part) => {
    const update = () => {
      fresh.add(part);
      if (due) return;
      due = true;
      queueMicrotask(() => {
        due = false;
        picture.show(Object.fromEntries([...fresh].map((one) => [one, model.get(one)])));
        fresh.clear();
      });
    };
    model.on(`change:${part}`, update);
    return [part, update];
  });
  let unfollow = () => {};
  const attach = () => {
    const whole = el.closest(".normviz") ?? root, ends = [follow(whole)];
    if (whole !== el) ends.push(named(whole));
    unfollow = () => ends.forEach((end) => end());
  };
  if (el.isConnected) attach();
  else requestAnimationFrame(() => setTimeout(attach));  // Jupyter puts it into the page after this
  el.picture = picture;
  views.set(model, (views.get(model) ?? 0) + 1);
  return () => {
    changed.forEach(([part, update]) => model.off(`change:${part}`, update));
    unfollow();
    views.set(model, views.get(model) - 1);
    if (model.get("passing")) {  // nobody holds it: without an output it has no use
      setTimeout(() => { if (!views.get(model)) model.send({ gone: true }); }, 1500);
    }
  };
}

const views = new WeakMap();

export default { render };

// The page --------------------------------------------------------------------------------------------------

/** Rows from columns of steps, as `page._columns` has them. */
function rowsOf(columns) {
  if (!Array.isArray(columns)) {
    const names = Object.keys(columns), values = names.map((name) => rowsOf(columns[name]));
    return values[0].map((_, i) => Object.fromEntries(names.map((name, k) => [name, values[k][i]])));
  }
  if (Array.isArray(columns[0])) {
    const [lengths, ...places] = columns.map(rowsOf);
    return lengths.map((length, i) => places.slice(0, length).map((place) => place[i]));
  }
  let last = null;
  return columns.map((step) => (last = step === null || last === null ? step : last + step));
}

/** A working explorer in an element, from what `normviz.explore.page.data` gives. */
export function mount(element, packed) {
  const data = { ...packed, states: rowsOf(packed.states) };
  const follower = follow(element);
  element.replaceChildren();
  const bar = make("div", "nv-controls", element), place = make("div", "nv-picture", element);
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", data.title);
  let at = 0, cell = data.cell ?? null;
  const line = (part) => (typeof part === "string" ? part : data.outlines[part]);  // what occurs once stands where it does
  const piece = (i) => {
    const one = data.pieces[i];
    if (typeof one === "string") return one;
    if (one.length === 3) return one[0] + one[1].map(line).join("") + one[2];
    const [open, paths, fills, names, labels, titles] = one;
    const colors = data.fills[fills], cells = data.names[names], sets = data.labels[labels], said = data.titles[titles];
    const faces = data.paths[paths].map((part, k) => {
      const cell = cells.length ? ` data-cell="${cells[k]}" data-set="${sets[k]}"` : "";
      const end = said.length ? `><title>${said[k]}</title></path>` : "/>";
      return `<path d="${line(part)}" fill="${data.colors[colors[k]]}"${cell}${end}`;
    });
    return `${open}${faces.join("")}</g>`;
  };
  const join = (list) => list.map(piece).join("");
  const picture = new Picture(place, (changes, handle) => reach(changes, handle));
  const shown = { backdrop: null, cells: null, handles: null };

  /** The state that a hand's move leads to: by its set where the state knows sets, else by one control after another. */
  function reach(changes, handle) {
    const state = data.states[at];
    if (handle.sets && state.sets !== null) {
      cell = handle.fields.map((field) => field.value).join();
      return show(at);
    }
    let target = at;
    for (const [name, value] of Object.entries(changes)) {
      const i = data.controls.findIndex((control) => control.name === name), control = data.states[target].controls[i];
      if (control) target = nearest(control, value);
    }
    if (target !== at) show(target);
    else picture.show({ handles: handlesOf(state) });  // a value that the page does not have
  }

  function nearest([, list, moves], value) {
    const values = data.lists[list].values;
    let best = 0;
    values.forEach((v, k) => { if (Math.abs(v - value) < Math.abs(values[best] - value)) best = k; });
    return data.moves[moves][best];
  }

  /** The handles that move something on this page. */
  function handlesOf(state) {
    const stops = (field) => {
      const control = state.controls[data.controls.findIndex((one) => one.name === field.name)];
      return control && data.lists[control[1]].values;
    };
    return data.handles[state.handles].map((handle) => {
      if (handle.sets && state.sets !== null) {
        const at = cell.split(",").map(Number);
        return { ...handle, fields: handle.fields.map((field, k) => ({ ...field, value: at[k] })) };
      }
      return { ...handle, fields: handle.fields.map((field) => ({ ...field, stops: stops(field) ?? [field.value] })) };
    }).filter(({ fields }) => fields.some((field) => !field.stops || field.stops.length > 1));
  }

  const widgets = data.controls.map((control, i) => {
    const label = make("label", "", bar), name = make("span", "", label);
    name.textContent = control.label;
    const input = document.createElement(control.kind === "choice" ? "select" : "input");
    if (control.kind === "flag") input.type = "checkbox";
    if (control.kind === "range") input.type = "range";
    label.append(input);
    const reading = control.kind === "range" ? make("output", "", label) : null;
    const turn = () => {
      const k = control.kind === "flag" ? Number(input.checked) : Number(input.value);
      const target = data.moves[data.states[at].controls[i][2]][k];
      if (target !== at) show(target);
    };
    input.addEventListener(control.kind === "range" ? "input" : "change", turn);
    return { input, reading, control };
  });

  /** The state to show for `target`: the cell stays where it is, and its set is lit; without one, the set's first. */
  function settled(target) {
    const state = data.states[target];
    if (state.sets === null || state.cells === null) return target;
    const { view, dims, shape } = data.cells[state.cells], labels = labelsOf(view, dims), sets = data.sets[state.sets];
    const place = cell?.split(",").map(Number);
    const inside = place?.every((v, axis) => v < shape[axis]);
    if (inside) return sets[labels[flat(place, shape)]];
    let k = labels.indexOf(sets.indexOf(target));
    const names = [];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      names.unshift(k % shape[axis]);
      k = Math.floor(k / shape[axis]);
    }
    cell = names.join();
    return target;
  }

  function show(target) {
    const started = performance.now();
    at = settled(target);
    const state = data.states[at];
    widgets.forEach(({ input, reading, control }, i) => {
      const [chosen, list] = state.controls[i], { texts } = data.lists[list];
      if (control.kind === "choice") {
        if (input.dataset.list !== String(list)) {
          input.dataset.list = list;
          input.replaceChildren(...texts.map((text, k) => new Option(text, k)));
        }
        input.selectedIndex = chosen;
      } else if (control.kind === "flag") {
        input.checked = Boolean(chosen);
      } else {
        input.max = texts.length - 1;
        input.value = chosen;
        reading.value = texts[chosen];
        input.setAttribute("aria-valuetext", texts[chosen]);
      }
      input.disabled = texts.length < 2;
    });
    const parts = { words: piece(state.words), parts: data.parts[state.parts], front: { head: data.head[state.head][1], pieces: state.front.flatMap((run) => data.runs[run]), text: piece } };
    if (shown.backdrop !== state.backdrop) {
      shown.backdrop = state.backdrop;
      const below = data.backdrops[state.backdrop];
      parts.backdrop = below.length ? data.head[state.head][0] + join(below) + "</svg>" : "";
    }
    if (shown.cells !== state.cells) {
      shown.cells = state.cells;
      parts.cells = state.cells === null ? null : data.cells[state.cells];
    }
    if (state.sets !== null && state.cells !== null) parts.mark = cell;
    parts.handles = handlesOf(state);
    picture.show(parts);
    const said = picture.words.querySelector("[role=status]")?.textContent ?? data.title;
    picture.front.querySelector("svg[role=img]")?.setAttribute("aria-label", said);
    element.took = performance.now() - started;
    element.dispatchEvent(new CustomEvent("nv:state", { bubbles: true, detail: { at } }));
  }

  if (data.rest) make("p", "nv-more", element).textContent = data.rest;
  show(data.start ?? 0);
  element.picture = picture;
  element.dataset.ready = "1";
  element.dispatchEvent(new CustomEvent("nv:ready", { bubbles: true }));
  return { state: () => at, close: () => { follower(); element.replaceChildren(); } };
}

/** Mounts every [data-explorer] of the page when it comes near the window. */
export function mountAll(scope = document) {
  const start = (element) => {
    if (element.dataset.ready) return;
    mount(element, JSON.parse(element.querySelector("script[type='application/json']").textContent));
  };
  const watch = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) { watch.unobserve(target); start(target); }
  }, { rootMargin: "600px" });
  scope.querySelectorAll("[data-explorer]").forEach((element) => watch.observe(element));
}
