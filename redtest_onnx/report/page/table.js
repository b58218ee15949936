// Tables that sort and filter, and whose layers can be copied as options of the command line.

/** A name as one word of a POSIX shell, its wildcards taken literally. */
function protectOption(name) {
  const pattern = name.replace(/[*?[]/g, (sign) => `[${sign}]`);
  return `--protect '${pattern.replaceAll("'", "'\\''")}'`;
}

class DataTable {
  constructor(table, tools) {
    this.table = table;
    this.body = table.tBodies[0];
    this.rows = [...this.body.rows];
    this.tools = tools;
    table.classList.add("sortable");
    [...table.tHead.rows[0].cells].forEach((head, k) => {
      const button = element("button", { type: "button", onclick: () => this.sort(k) }, head.textContent || "measure");
      head.replaceChildren(button);
    });
    if (this.rows.length > 12) this.addFilter();
    if (table.hasAttribute("data-protect")) this.addProtect();
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
  }

  addFilter() {
    this.input = element("input", { type: "search", placeholder: "Filter rows", "aria-label": "Filter rows", oninput: () => this.filter() });
    this.count = element("span", { class: "count" }, `${this.rows.length.toLocaleString("en")} rows`);
    this.tools.append(this.input, this.count);
  }

  filter() {
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.texts = this.texts || new Map(this.rows.map((row) => [row, row.textContent.toLowerCase()]));
    let shown = 0;
    for (const row of this.rows) {
      const text = this.texts.get(row);
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    this.count.textContent = `${shown.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")} rows`;
  }

  addProtect() {
    const place = [...this.table.tHead.rows[0].cells].findIndex((head) => head.classList.contains("name"));
    this.boxes = new Map(this.rows.map((row) => {
      const cell = row.cells[place], name = cell.textContent;
      const box = element("input", { type: "checkbox" });
      cell.replaceChildren(element("label", {}, box, element("span", {}, name)));
      return [row, [box, name]];
    }));
    this.copied = element("output", { class: "copied", "aria-live": "polite" });
    this.tools.append(
      element("button", { type: "button", title: "The ticked layers, or all that are shown", onclick: () => this.copy() }, "Copy as --protect"),
      this.copied);
  }

  async copy() {
    const shown = this.rows.filter((row) => !row.hidden);
    const ticked = shown.filter((row) => this.boxes.get(row)[0].checked);
    const text = (ticked.length ? ticked : shown).map((row) => protectOption(this.boxes.get(row)[1])).join(" ");
    this.copied.textContent = text;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(this.copied); // where a browser forbids it, Ctrl+C takes the selection
      document.execCommand("copy");
    }
  }
}
