// The heat map: hover, zoom by dragging, by buttons and by keys, a switch between before and after.

/** Values of a matrix as numbers from 0 to 1, NaN where undefined; see encode.py for the layout. */
function decode(matrix) {
  const bytes = Uint8Array.from(atob(matrix.data), (letter) => letter.charCodeAt(0));
  const [rows, columns] = matrix.shape;
  const values = new Float32Array(rows * columns);
  const symmetric = matrix.symmetric;
  let k = 0;
  for (let i = 0; i < rows; i++) {
    for (let j = symmetric ? i : 0; j < columns; j++, k++) {
      const number = matrix.bytes === 1 ? bytes[k] : bytes[2 * k] | (bytes[2 * k + 1] << 8);
      const value = number > matrix.levels ? NaN : number / matrix.levels;
      values[i * columns + j] = value;
      if (symmetric) values[j * columns + i] = value;
    }
  }
  return values;
}

/** The matrix as an image of a pixel a value. */
function paint(values, rows, columns) {
  const image = new ImageData(columns, rows);
  const table = Array.from({ length: 256 }, (_, k) => colourOf(k / 255));
  for (let k = 0; k < values.length; k++) {
    const [r, g, b] = Number.isNaN(values[k]) ? [138, 138, 138] : table[Math.round(values[k] * 255)];
    image.data.set([r, g, b, 255], 4 * k);
  }
  const canvas = element("canvas", { width: columns, height: rows });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

class Heatmap {
  constructor(place, matrices) {
    this.matrices = matrices;
    this.canvas = element("canvas", { role: "img" });
    this.switches = matrices.map((matrix, k) =>
      element("button", { type: "button", "aria-pressed": "false", onclick: () => this.choose(k) }, matrix.title));
    const tools = element("div", { class: "tools" });
    if (matrices.length > 1) tools.append(element("span", { class: "group", role: "group", "aria-label": "Which model" }, ...this.switches));
    tools.append(
      element("span", { class: "group" },
        element("button", { type: "button", "aria-label": "Zoom in", onclick: () => this.zoom(0.5) }, "+"),
        element("button", { type: "button", "aria-label": "Zoom out", onclick: () => this.zoom(2) }, "\u2212"),
        element("button", { type: "button", onclick: () => this.reset() }, "Whole")),
      element("span", { class: "count" }, matchMedia("(pointer: coarse)").matches
        ? "Tap a square for its layers." : "Drag to zoom. Keys: arrows, +, \u2212, 0."));
    this.legend = element("div", { class: "scale" });
    place.replaceChildren(tools, this.canvas, this.legend);
    interact(this.canvas, {
      at: (x, y, px, py) => this.hover(x, y, px, py),
      move: (down, right) => this.step(down, right),
      key: (name) => this.key(name),
    });
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointerup", () => this.end());
    this.canvas.addEventListener("dblclick", () => this.reset());
    redraws.push(() => this.draw());
    this.choose(0);
  }

  choose(k) {
    const matrix = this.matrices[k];
    this.matrix = matrix;
    [this.rows, this.columns] = matrix.shape;
    matrix.shared = matrix.shared || Object.fromEntries([["row", matrix.rows], ["column", matrix.columns]]
      .map(([along, items]) => [along, shared(items.map((item) => item[0]))]));
    matrix.values = matrix.values || decode(matrix);
    matrix.image = matrix.image || paint(matrix.values, this.rows, this.columns);
    this.switches.forEach((button, i) => button.setAttribute("aria-pressed", String(i === k)));
    const across = matrix.columns;
    this.canvas.setAttribute("aria-label", `${matrix.measure} of ${matrix.rows.length} by ${across.length} layers`);
    const marked = matrix.rows.some((item) => item[2]) || across.some((item) => item[2]);
    this.legend.replaceChildren(
      element("span", { class: "ramp" }, "0", element("i"), `1 ${matrix.measure}`),
      ...(marked ? [element("span", { class: "key" }, element("i"), page.marking)] : []),
      ...(matrix.values.some(Number.isNaN) ? [element("span", { class: "key gap" }, element("i"), "undefined")] : []),
      ...(matrix.step > 1 ? [element("span", {}, `Each square is the mean of ${matrix.step} x ${matrix.step} pairs.`)] : []));
    this.current = null;
    this.reset();
  }

  reset() {
    this.view = [0, 0, this.rows, this.columns];
    this.draw();
  }

  zoom(factor) {
    const [top, left, height, width] = this.view;
    const [i, j] = this.current || [top + height / 2, left + width / 2];
    const tall = Math.max(4, Math.min(this.rows, Math.round(height * factor)));
    const wide = Math.max(4, Math.min(this.columns, Math.round(width * factor)));
    this.look(i - tall / 2, j - wide / 2, tall, wide);
  }

  look(top, left, height, width) {
    const tall = Math.min(height, this.rows), wide = Math.min(width, this.columns);
    this.view = [
      Math.round(Math.max(0, Math.min(top, this.rows - tall))),
      Math.round(Math.max(0, Math.min(left, this.columns - wide))), tall, wide];
    this.draw();
  }

  /** Layers that a row or column stands for, with all that is known of them. */
  items(along, k) {
    const all = along === "row" ? this.matrix.rows : this.matrix.columns;
    return all.slice(k * this.matrix.step, (k + 1) * this.matrix.step);
  }

  named(along, k) {
    const items = this.items(along, k);
    const last = items[items.length - 1];
    const first = k * this.matrix.step;
    if (items.length > 1) return [`${first} ${items[0][0]} \u2013 ${first + items.length - 1} ${last[0]}`, ""];
    return [`${first} ${items[0][0]}${items[0][2] ? ` (${page.marking})` : ""}`, items[0][1]];
  }

  draw() {
    const room = this.canvas.parentElement.clientWidth;
    const colours = theme();
    const [top, left, tall, wide] = this.view;
    let context = this.canvas.getContext("2d");
    context.font = "11px system-ui, sans-serif";
    const names = room >= 560 ? Math.min(220, room * 0.3) : Math.min(120, room * 0.31);
    const margin = Math.min(names, this.widest(context, "row", top, tall) + 4) + 14;
    const side = Math.min(room - margin - 4, 760);
    this.below = this.matrix.symmetric ? 24 : Math.min(120, this.widest(context, "column", left, wide) + 4) + 10;
    const height = this.matrix.symmetric
      ? side * Math.min(1, tall / wide)
      : Math.max(180, Math.min(760, side * tall / wide));
    this.plot = { x: margin, y: 10, width: side, height };
    context = prepare(this.canvas, margin + side + 4, 10 + height + this.below);
    context.imageSmoothingEnabled = side < wide;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.matrix.image, left, top, wide, tall, margin, 10, side, height);
    this.labels(context, colours, margin - 14);
    if (this.current) this.outline(context, ...this.current);
    if (this.drag) {
      const [x0, y0, x1, y1] = this.drag;
      context.strokeStyle = "#ffffff";
      context.lineWidth = 1.5;
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  }

  /** Name and position of a row or column; the position ends it, so that it stays where names are cut. */
  label(along, k) {
    return `${distinct(this.items(along, k)[0][0], this.matrix.shared[along])}  ${k * this.matrix.step}`;
  }

  /** Pixels of the longest of some labels in the view. */
  widest(context, along, first, count) {
    const some = Math.min(count, 80);
    const texts = Array.from({ length: some }, (_, k) => this.label(along, first + Math.floor(k * count / some)));
    return Math.max(...texts.map((text) => context.measureText(text).width));
  }

  labels(context, colours, room) {
    const { x, y, width, height } = this.plot;
    const [top, left, tall, wide] = this.view;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const down = height / tall, across = width / wide;
    const { step } = this.matrix, every = roundStep(13 / down * step);
    const labelled = (k, among) => k * step % among < step; // the first square at a round number, or behind it
    for (let k = 0; k < tall; k++) {
      const marked = this.items("row", top + k).some((item) => item[2]);
      if (marked) this.strip(context, colours, x - 9, y + k * down, 5, Math.max(1, down - 0.5));
      if (!labelled(top + k, every)) continue;
      context.fillStyle = marked && every === 1 ? colours.removed : colours.muted;
      context.fillText(shorten(context, this.label("row", top + k), room), x - 12, y + (k + 0.5) * down);
    }
    if (!this.matrix.symmetric) return this.upright(context, colours, (k) => labelled(k, roundStep(13 / across * step)));
    context.textAlign = "center";
    const widest = context.measureText(String((left + wide) * step)).width + 8;
    const skip = roundStep(widest / across * step);
    for (let k = 0; k < wide; k++) {
      const marked = this.items("column", left + k).some((item) => item[2]);
      if (marked) this.strip(context, colours, x + k * across, y - 8, Math.max(1, across - 0.5), 5);
      const number = String((left + k) * step), middle = x + (k + 0.5) * across;
      if (!labelled(left + k, skip) || middle + context.measureText(number).width / 2 > x + width + 4) continue;
      context.fillStyle = colours.muted;
      context.fillText(number, middle, y + height + 12);
    }
  }

  /** Names of columns that are not the rows' again, from top to bottom. */
  upright(context, colours, labelled) {
    const { x, y, width, height } = this.plot, [, left, , wide] = this.view;
    context.textAlign = "right";
    context.fillStyle = colours.muted;
    for (let k = 0; k < wide; k++) {
      if (!labelled(left + k)) continue;
      context.save();
      context.translate(x + (k + 0.5) * width / wide, y + height + 7);
      context.rotate(-Math.PI / 2);
      context.fillText(shorten(context, this.label("column", left + k), this.below - 10), 0, 0);
      context.restore();
    }
  }

  strip(context, colours, x, y, width, height) {
    context.fillStyle = colours.removed;
    context.fillRect(x, y, width, height);
  }

  outline(context, i, j) {
    const { x, y, width, height } = this.plot;
    const [top, left, tall, wide] = this.view;
    if (i < top || j < left || i >= top + tall || j >= left + wide) return;
    context.lineWidth = 2;
    context.strokeStyle = "#ffffff";
    context.strokeRect(x + (j - left) * width / wide, y + (i - top) * height / tall, Math.max(3, width / wide), Math.max(3, height / tall));
  }

  cell(x, y) {
    const [top, left, tall, wide] = this.view;
    const i = Math.floor((y - this.plot.y) / this.plot.height * tall), j = Math.floor((x - this.plot.x) / this.plot.width * wide);
    return i < 0 || j < 0 || i >= tall || j >= wide ? null : [top + i, left + j];
  }

  hover(x, y, px, py) {
    if (this.drag) {
      this.drag[2] = x;
      this.drag[3] = y;
      this.draw();
      return;
    }
    const found = this.cell(x, y);
    const before = this.current && String(this.current);
    this.current = found;
    if (String(found) !== before) this.draw();
    if (found) this.tell(px, py);
    else hideTip();
  }

  tell(px, py) {
    const [i, j] = this.current;
    const value = this.matrix.values[i * this.columns + j];
    const digits = this.matrix.bytes === 1 || this.matrix.step > 1 ? 2 : 4;
    const text = Number.isNaN(value) ? "undefined" : value.toFixed(digits);
    const [row, rowDetail] = this.named("row", i), [column, columnDetail] = this.named("column", j);
    const same = i === j && this.matrix.symmetric;
    tip([`${this.matrix.measure} ${text}`, row, rowDetail, ...(same ? [] : [column, columnDetail])], px, py);
  }

  step(down, right) {
    const [top, left, tall, wide] = this.view;
    const [i, j] = this.current || [top, left - right];
    const ni = Math.max(0, Math.min(this.rows - 1, i + down)), nj = Math.max(0, Math.min(this.columns - 1, j + right));
    this.current = [ni, nj];
    const inside = ni >= top && nj >= left && ni < top + tall && nj < left + wide;
    if (inside) this.draw();
    else this.look(ni - Math.floor(tall / 2), nj - Math.floor(wide / 2), tall, wide);
    const box = this.canvas.getBoundingClientRect();
    this.tell(
      box.left + this.plot.x + (nj - this.view[1] + 0.5) * this.plot.width / this.view[3],
      box.top + this.plot.y + (ni - this.view[0] + 0.5) * this.plot.height / this.view[2]);
  }

  key(name) {
    if (name === "+" || name === "=") this.zoom(0.5);
    else if (name === "-") this.zoom(2);
    else if (name === "0" || name === "Escape") this.reset();
    else return false;
    return true;
  }

  begin(event) {
    if (event.pointerType !== "mouse" || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.drag = [event.offsetX, event.offsetY, event.offsetX, event.offsetY];
  }

  end() {
    if (!this.drag) return;
    const [x0, y0, x1, y1] = this.drag;
    this.drag = null;
    if (Math.abs(x1 - x0) > 6 && Math.abs(y1 - y0) > 6) {
      const inside = (x, y) => this.cell(
        Math.max(this.plot.x, Math.min(x, this.plot.x + this.plot.width - 0.01)),
        Math.max(this.plot.y, Math.min(y, this.plot.y + this.plot.height - 0.01)));
      const [i0, j0] = inside(Math.min(x0, x1), Math.min(y0, y1)), [i1, j1] = inside(Math.max(x0, x1), Math.max(y0, y1));
      const square = this.matrix.symmetric ? Math.max(i1 - i0, j1 - j0) + 1 : 0;
      this.current = null;
      this.look(i0, j0, Math.max(4, square || i1 - i0 + 1), Math.max(4, square || j1 - j0 + 1));
    } else {
      this.draw();
    }
  }
}
