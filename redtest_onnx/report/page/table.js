// Tables that sort and filter, and whose layers can be copied as options of the command line.

/** A name as one word of a POSIX shell, its wildcards taken literally. */
function protectOption(name) {
  const pattern = name.replace(/[*?[]/g, (sign) => `[${sign}]`);
  return `--protect '${pattern.replaceAll("'", "'\\''")}'`;
}

const MOST = 250; // rows that are laid out at once; a button shows all

class DataTable {
  constructor(table, tools) {
    this.table = table;
    this.body = table.tBodies[0];
    this.rows = [...this.body.rows];
    this.most = MOST;
    this.words = [];
    this.tools = tools;
    table.classList.add("sortable");
    [...table.tHead.rows[0].cells].forEach((head, k) => {
      const button = element("button", { type: "button", onclick: () => this.sort(k) }, head.textContent || "measure");
      head.replaceChildren(button);
    });
    if (this.rows.length > 12) {
      this.addFilter();
      table.classList.add("many");
    }
    if (table.hasAttribute("data-protect")) this.addProtect();
    this.refresh();
    tools.hidden = !tools.children.length;
  }

  sort(k) {
    const heads = [...this.table.tHead.rows[0].cells];
    const down = heads[k].getAttribute("aria-sort") === "ascending";
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[k].setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = heads[k].classList.contains("n");
    const keys = new Map(this.rows.map((row) => {
      const cell = row.cells[k];
      if (!numeric) return [row, cell.textContent];
      return [row, cell.dataset.v === "" ? null : Number(cell.dataset.v)];
    }));
    const order = new Intl.Collator("en", { numeric: true });
    this.rows.sort((one, two) => {
      const a = keys.get(one), b = keys.get(two);
      if (a === null || b === null) return (a === null) - (b === null);
      const least = numeric ? a - b : order.compare(a, b);
      return down ? -least : least;
    });
    this.body.append(...this.rows);
    this.refresh();
  }

  addFilter() {
    const input = element("input", {
      type: "search", placeholder: "Filter rows", "aria-label": "Filter rows",
      oninput: () => {
        this.words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        this.refresh();
      },
    });
    this.count = element("span", { class: "count", role: "status" });
    this.all = element("button", { type: "button", onclick: () => { this.most = Infinity; this.refresh(); } }, "Show all");
    this.tools.append(input, this.count, this.all);
  }

  /** Rows that hold all words of the filter, in the order of the table. */
  matching() {
    if (!this.words.length) return this.rows;
    this.texts = this.texts || new Map(this.rows.map((row) => [row, row.textContent.toLowerCase()]));
    return this.rows.filter((row) => this.words.every((word) => this.texts.get(row).includes(word)));
  }

  refresh() {
    const matching = this.matching(), shown = new Set(this.count ? matching.slice(0, this.most) : matching);
    for (const row of this.rows) {
      row.hidden = !shown.has(row);
      if (!row.hidden && this.place !== undefined) this.addBox(row);
    }
    if (!this.count) return;
    const write = (number) => number.toLocaleString("en");
    const total = this.words.length ? `${write(matching.length)} of ${write(this.rows.length)} rows` : `${write(this.rows.length)} rows`;
    this.count.textContent = shown.size < matching.length ? `first ${write(shown.size)} of ${total}` : total;
    this.all.hidden = shown.size === matching.length;
  }

  addBox(row) {
    if (this.boxes.has(row)) return;
    const cell = row.cells[this.place], box = element("input", { type: "checkbox" });
    this.boxes.set(row, box);
    cell.replaceChildren(element("label", {}, box, element("span", {}, cell.textContent)));
  }

  addProtect() {
    this.place = [...this.table.tHead.rows[0].cells].findIndex((head) => head.classList.contains("name"));
    this.boxes = new Map();
    this.copied = element("output", { class: "copied", "aria-live": "polite" });
    this.tools.append(
      element("button", { type: "button", title: "The ticked layers, or all that pass the filter", onclick: () => this.copy() }, "Copy as --protect"),
      this.copied);
  }

  async copy() {
    const matching = this.matching();
    const ticked = this.rows.filter((row) => this.boxes.get(row)?.checked);
    const text = (ticked.length ? ticked : matching).map((row) => protectOption(row.cells[this.place].textContent)).join(" ");
    this.copied.textContent = text;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(this.copied); // where a browser forbids it, Ctrl+C takes the selection
      document.execCommand("copy");
    }
  }
}
