// Panels of columns over the same items: parameters, operations, time of every layer.

const PANEL = 118, BESIDE = 600; // heights: of a panel, of all panels beside a heat map

class ColumnChart {
  constructor(place, chart) {
    this.chart = chart;
    this.canvas = element("canvas", { role: "img", "aria-label": `${chart.panels.map((p) => p.title).join(", ")} of ${chart.items.length} items` });
    this.legend = element("div", { class: "scale" },
      ...(chart.items.some((item) => item[2]) ? [element("span", { class: "key" }, element("i"), page.marking)] : []));
    place.replaceChildren(this.canvas, this.legend);
    this.current = null;
    interact(this.canvas, {
      at: (x, y, px, py) => this.hover(x, px, py),
      move: (down, right) => this.step(down + right),
    });
    redraws.push(() => this.draw());
    this.draw();
  }

  draw() {
    const { items, panels, ends } = this.chart;
    const place = this.canvas.parentElement, width = place.clientWidth;
    const beside = place.closest(".pair") && matchMedia("(min-width: 1100px)").matches;
    this.tall = beside ? Math.max(PANEL, Math.min(2 * PANEL, BESIDE / panels.length)) : PANEL;
    const colours = theme();
    const context = prepare(this.canvas, width, panels.length * this.tall + 22);
    this.plot = { x: 62, width: width - 66 };
    panels.forEach((panel, k) => this.panel(context, colours, panel, k * this.tall + 22));
    context.fillStyle = colours.muted;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const slot = this.plot.width / items.length;
    const skip = roundStep((context.measureText(String(items.length)).width + 10) / slot);
    for (let k = 0; this.chart.numbered && k < items.length; k += skip) {
      if (this.plot.x + (k + 0.5) * slot + context.measureText(String(k)).width / 2 > width) break;
      context.fillText(String(k), this.plot.x + (k + 0.5) * slot, panels.length * this.tall + 12);
    }
    ends.forEach((text, k) => {
      context.textAlign = k ? "right" : "left";
      context.fillText(text, this.plot.x + k * this.plot.width, panels.length * this.tall + 12);
    });
    if (this.current !== null) {
      context.globalAlpha = 0.12;
      context.fillStyle = colours.text;
      context.fillRect(this.plot.x + this.current * slot, 4, Math.max(2, slot), panels.length * this.tall);
      context.globalAlpha = 1;
    }
  }

  panel(context, colours, panel, top) {
    const { x, width } = this.plot, height = this.tall - 30;
    const known = panel.values.filter((v) => v !== null);
    const largest = Math.max(...known, panel.line || 0) || 1;
    const marks = ticks(0, largest, 3), step = marks.length > 1 ? marks[1] : largest;
    const most = Math.ceil(largest / step - 1e-9) * step; // the axis ends at a mark
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillStyle = colours.text;
    context.fillText(panel.title, x, top - 11);
    context.textAlign = "right";
    for (const value of ticks(0, most, most / step)) {
      const y = top + height - value / most * height;
      context.fillStyle = colours.line;
      context.fillRect(x, y, width, 1);
      context.fillStyle = colours.muted;
      context.fillText(tick(panel.kind, value), x - 6, y);
    }
    this.bars(context, colours, panel.values, top, height, most);
    if (panel.line !== null) {
      context.fillStyle = colours.text;
      for (let dash = 0; dash < width; dash += 8) context.fillRect(x + dash, top + height - panel.line / most * height, 4, 1);
    }
  }

  /** Where there are more items than pixels, a pixel shows the largest of its items. */
  bars(context, colours, values, top, height, most) {
    const { x, width } = this.plot, slot = width / values.length;
    const gap = slot > 6 ? 1.5 : slot > 2.5 ? 0.5 : 0;
    const drawn = new Map();
    values.forEach((value, k) => {
      if (value === null) return;
      const place = slot < 1 ? Math.floor(k * slot) : k * slot;
      const marked = this.chart.items[k][2];
      const before = drawn.get(place);
      if (!before || before[0] < value) drawn.set(place, [value, marked || (before && before[1])]);
      else if (marked) before[1] = marked;
    });
    for (const [place, [value, marked]] of drawn) {
      const tall = Math.max(value > 0 ? 1 : 0, value / most * height);
      context.fillStyle = marked ? colours.removed : colours.data;
      // Columns of a pixel or two end where pixels do: else equal ones would look striped.
      const pixel = (place) => Math.floor(place + 1e-6);
      const left = gap ? place + gap / 2 : pixel(place), right = gap ? place + slot - gap / 2 : pixel(place + slot);
      context.fillRect(x + left, top + height - tall, Math.max(1, right - left), tall);
    }
  }

  hover(x, px, py) {
    const k = Math.floor((x - this.plot.x) / this.plot.width * this.chart.items.length);
    const found = k >= 0 && k < this.chart.items.length ? k : null;
    if (found !== this.current) {
      this.current = found;
      this.draw();
    }
    if (found === null) hideTip();
    else this.tell(px, py);
  }

  tell(px, py) {
    const [name, detail, marked] = this.chart.items[this.current];
    const values = this.chart.panels.map((panel) => `${panel.title}: ${show(panel.kind, panel.values[this.current])}`);
    tip([`${this.chart.numbered ? `${this.current} ` : ""}${name}${marked ? ` (${page.marking})` : ""}`, detail, ...values], px, py);
  }

  step(by) {
    const count = this.chart.items.length;
    this.current = this.current === null ? 0 : Math.max(0, Math.min(count - 1, this.current + by));
    this.draw();
    const box = this.canvas.getBoundingClientRect();
    this.tell(box.left + this.plot.x + (this.current + 0.5) * this.plot.width / count, box.top + 40);
  }
}
