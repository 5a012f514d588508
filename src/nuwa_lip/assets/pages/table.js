"use strict";
// a cell's number is what it begins with; cells without one come last
const number = text => { const value = parseFloat(text); return Number.isNaN(value) ? Infinity : value; };
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => {
    head.firstChild.addEventListener("click", () => {
      // best first, the other way round by another click
      const order = head.textContent.includes("↑") ? ["descending", "ascending"] : ["ascending", "descending"];
      const now = order[head.getAttribute("aria-sort") === order[0] ? 1 : 0], up = now === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", now);
      const rows = [...table.tBodies[0].rows];
      const text = row => row.cells[column].textContent;
      rows.sort((a, b) => {
        const [x, y] = [number(text(a)), number(text(b))];
        if (x === y) return column === 0 ? (up ? 1 : -1) * text(a).localeCompare(text(b)) : 0;
        if (x === Infinity || y === Infinity) return x === Infinity ? 1 : -1;
        return up ? x - y : y - x;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
for (const gallery of document.querySelectorAll("section.gallery")) {
  const [row, metric, direction] = ["row", "metric", "direction"].map(c => gallery.querySelector("select." + c));
  const list = gallery.querySelector(".items");
  const value = item => {
    const figures = JSON.parse(item.dataset.figures);
    const found = (figures[row.value] || {})[metric.value];
    return found === undefined || found === null ? Infinity : found;
  };
  const sort = () => {
    row.disabled = direction.disabled = metric.value === "";
    const items = [...list.children];
    items.sort((a, b) => {
      if (metric.value === "") return a.dataset.index - b.dataset.index;
      const [x, y] = [value(a), value(b)];
      if (x === Infinity || y === Infinity) return x === y ? 0 : (x === Infinity ? 1 : -1);
      return direction.value === "up" ? x - y : y - x;
    });
    list.append(...items);
  };
  for (const select of [row, metric, direction]) select.addEventListener("change", sort);
  sort();  // a browser may have kept what was chosen before
}
