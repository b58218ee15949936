// A chart of points: the trade-off curve of pruning, candidates of a ranking.

class PointChart {
  constructor(place, chart) {
    this.chart = chart;
    this.canvas = element("canvas", { role: "img", "aria-label": `${chart.y.title} over ${chart.x.title}, ${chart.points.length} points` });
    const keys = [];
    if (chart.points.some((p) => p.front)) keys.push(element("span", {}, "Line: best points"));
    if (chart.points.some((p) => p.chosen)) keys.push(element("span", { class: "key" }, element("i"), "chosen"));
    if (chart.points.some((p) => p.colour !== null)) keys.push(element("span", { class: "ramp" }, "MSRS low", element("i"), "high"));
    place.replaceChildren(this.canvas, element("div", { class: "scale" }, ...keys));
    this.current = null;
    this.order = chart.points.map((_, k) => k).sort((a, b) => chart.points[a].x - chart.points[b].x);
    interact(this.canvas, { at: (x, y, px, py) => this.hover(x, y, px, py), move: (down, right) => this.step(right || -down) });
    redraws.push(() => this.draw());
    this.draw();
  }

  /** Limits of an axis with some room, and how a value becomes a share of its length. */
  axis(name) {
    const { log, kind } = this.chart[name];
    const values = this.chart.points.map((p) => p[name]);
    const to = log ? Math.log10 : (v) => v;
    let low = to(Math.min(...values)), high = to(Math.max(...values));
    const room = (high - low || Math.abs(high) || 1) * 0.08;
    [low, high] = [low - room, high + room];
    const marks = log ? this.powers(low, high) : ticks(low, high, name === "x" ? 6 : 5);
    return { at: (value) => (to(value) - low) / (high - low), marks, kind };
  }

  powers(low, high) {
    const found = [];
    for (let power = Math.floor(low); power <= high; power++) {
      for (const k of [1, 2, 5]) {
        const place = power + Math.log10(k);
        if (place >= low && place <= high) found.push(k * 10 ** power);
      }
    }
    return found.length > 1 ? found : ticks(10 ** low, 10 ** high, 4);
  }

  draw() {
    const width = this.canvas.parentElement.clientWidth;
    const height = Math.max(260, Math.min(430, width * 0.5));
    const colours = theme();
    const context = prepare(this.canvas, width, height);
    const x = this.axis("x"), y = this.axis("y");
    const plot = { x: 66, y: 24, width: width - 84, height: height - 70 };
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const value of y.marks) {
      const place = plot.y + (1 - y.at(value)) * plot.height;
      context.fillStyle = colours.line;
      context.fillRect(plot.x, place, plot.width, 1);
      context.fillStyle = colours.muted;
      context.fillText(tick(y.kind, value), plot.x - 6, place);
    }
    context.textAlign = "center";
    let free = -1e9;
    for (const value of x.marks) {
      const place = plot.x + x.at(value) * plot.width, text = tick(x.kind, value);
      const half = context.measureText(text).width / 2 + 4;
      context.fillStyle = colours.line;
      context.fillRect(place, plot.y, 1, plot.height);
      if (place - half < free || place + half > width) continue;
      free = place + half;
      context.fillStyle = colours.muted;
      context.fillText(text, place, plot.y + plot.height + 14);
    }
    context.fillStyle = colours.text;
    context.fillText(this.chart.x.title, plot.x + plot.width / 2, height - 14);
    context.textAlign = "left";
    context.fillText(this.chart.y.title, 4, 10);
    this.places = this.chart.points.map((p) => [plot.x + x.at(p.x) * plot.width, plot.y + (1 - y.at(p.y)) * plot.height]);
    this.front(context, colours);
    this.dots(context, colours);
    this.names(context, colours, width, plot.y + plot.height);
  }

  front(context, colours) {
    context.strokeStyle = colours.data;
    context.lineWidth = 1.5;
    context.beginPath();
    let begun = false;
    for (const k of this.order) {
      if (!this.chart.points[k].front) continue;
      if (begun) context.lineTo(...this.places[k]);
      else context.moveTo(...this.places[k]);
      begun = true;
    }
    context.stroke();
  }

  dots(context, colours) {
    this.chart.points.forEach((point, k) => {
      const [px, py] = this.places[k];
      context.beginPath();
      context.arc(px, py, point.chosen || k === this.current ? 7 : 4.5, 0, 7);
      context.fillStyle = point.chosen ? colours.removed : point.colour === null ? colours.data : `rgb(${colourOf(point.colour)})`;
      context.fill();
      context.lineWidth = 1;
      // The ends of the scale are as dark or as bright as the ground: a rim keeps those points in sight.
      context.strokeStyle = point.front || k === this.current ? colours.text : point.colour === null ? colours.ground : colours.muted;
      context.stroke();
    });
  }

  /** Places along the line through the front, which names keep off. */
  line() {
    const ends = this.order.filter((k) => this.chart.points[k].front).map((k) => this.places[k]);
    return ends.slice(1).flatMap(([x, y], k) => {
      const [a, b] = ends[k], count = Math.ceil(Math.hypot(x - a, y - b) / 8);
      return Array.from({ length: count }, (_, i) => [a + (x - a) * (i + 0.5) / count, b + (y - b) * (i + 0.5) / count]);
    });
  }

  /** Names beside their points where they cover nothing: the chosen one first, then those of the front. */
  names(context, colours, width, bottom) {
    const taken = [...this.places, ...this.line()].map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
    const weight = (k) => this.chart.points[k].chosen * 2 + this.chart.points[k].front;
    const order = [...this.order].sort((a, b) => weight(b) - weight(a)).slice(0, 60);
    context.fillStyle = colours.text;
    context.textAlign = "left";
    for (const k of order) {
      const text = shorten(context, this.chart.points[k].label || this.chart.points[k].name, 170), wide = context.measureText(text).width;
      const [x, y] = this.places[k];
      for (const [left, top] of [[x + 9, y - 8], [x - 9 - wide, y - 8], [x + 9, y + 9], [x - 9 - wide, y + 9],
        [x - wide / 2, y - 17], [x - wide / 2, y + 18], [x + 9, y - 22], [x + 9, y + 23]]) {
        const box = [left, top - 7, left + wide, top + 7];
        if (box[0] < 68 || box[2] > width || box[1] < 18 || box[3] > bottom + 4) continue;
        if (taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
        taken.push(box);
        context.fillText(text, left, top);
        break;
      }
    }
  }

  hover(x, y, px, py) {
    let best = null, least = 24 ** 2;
    this.places.forEach(([a, b], k) => {
      const distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least) [best, least] = [k, distance];
    });
    if (best !== this.current) {
      this.current = best;
      this.draw();
    }
    if (best === null) hideTip();
    else this.tell(px, py);
  }

  tell(px, py) {
    const point = this.chart.points[this.current];
    const { x, y } = this.chart;
    tip([`${point.name}${point.chosen ? " (chosen)" : ""}`, `${y.title}: ${show(y.kind, point.y)}`, `${x.title}: ${show(x.kind, point.x)}`, point.detail], px, py);
  }

  step(by) {
    const at = this.current === null ? (by > 0 ? -1 : this.order.length) : this.order.indexOf(this.current);
    this.current = this.order[Math.max(0, Math.min(this.order.length - 1, at + by))];
    this.draw();
    const box = this.canvas.getBoundingClientRect();
    this.tell(box.left + this.places[this.current][0], box.top + this.places[this.current][1]);
  }
}
