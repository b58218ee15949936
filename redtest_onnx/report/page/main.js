// Put everything in its place, and draw again when the window or the theme changes.

for (const part of [...page.matrices, ...page.charts]) {
  for (const name of ["rows", "columns", "items"]) if (name in part) part[name] = page.series[part[name]];
}
// Tables first: what they hide need not be laid out for the sizes that the charts ask for.
for (const tools of document.querySelectorAll(".tools[data-for]")) {
  new DataTable(document.getElementById(`table-${tools.dataset.for}`), tools);
}
if (page.matrices.length) new Heatmap(document.getElementById("matrix"), page.matrices);
page.charts.forEach((chart, k) => {
  const place = document.getElementById(`chart-${k}`);
  place.parentElement.hidden = false;
  if (chart.type === "columns") new ColumnChart(place, chart);
  else new PointChart(place, chart);
});

let width = innerWidth, waiting = 0;
function redraw() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => redraws.forEach((draw) => draw()));
}
addEventListener("resize", () => {
  if (innerWidth !== width) redraw();
  width = innerWidth;
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("scroll", hideTipOnScroll, { passive: true });
