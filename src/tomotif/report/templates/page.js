(() => {
  const close = () => document.querySelectorAll(".slice.zoomed").forEach((it) => it.classList.remove("zoomed"));
  document.querySelectorAll(".slice").forEach((figure) => {
    const toggle = () => {
      const open = figure.classList.contains("zoomed");
      close();
      figure.classList.toggle("zoomed", !open);
    };
    figure.querySelector("button").addEventListener("click", toggle);
  });
  document.querySelectorAll(".map").forEach((map) => {
    const field = map.querySelector(".points"), points = [...field.querySelectorAll("circle")];
    const tile = map.querySelector(".tile"), caption = map.querySelector("figcaption");
    const { columns, width, height } = map.dataset;
    let at = points[0];
    const show = (point) => {
      const i = points.indexOf(point);
      at.classList.remove("at");
      at.setAttribute("tabindex", -1);
      point.classList.add("at");
      point.setAttribute("tabindex", 0);
      at = point;
      tile.setAttribute("viewBox", `${(i % columns) * width} ${Math.floor(i / columns) * height} ${width} ${height}`);
      caption.textContent = point.textContent;
    };
    const middle = (point) => {
      const box = point.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    };
    const nearest = (cost) => {
      const priced = points.filter((it) => it.getClientRects().length).map((it) => [cost(...middle(it), it), it]);
      return priced.reduce((best, one) => (one[0] < best[0] ? one : best), [Infinity, null])[1];
    };
    const under = (event) => nearest((x, y) => {
      const apart = Math.hypot(x - event.clientX, y - event.clientY);
      return apart < 30 ? apart : Infinity;
    });
    field.addEventListener("pointermove", (event) => {
      const point = under(event);
      if (point && point !== at) show(point);
    });
    field.addEventListener("click", (event) => under(event)?.focus());
    field.addEventListener("focusin", (event) => event.target !== at && show(event.target));
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    field.addEventListener("keydown", (event) => {
      const way = ways[event.key];
      if (!way) return;
      event.preventDefault();
      const [x, y] = middle(at);
      nearest((px, py, point) => {
        const along = (px - x) * way[0] + (py - y) * way[1], aside = Math.abs((px - x) * way[1] + (py - y) * way[0]);
        return point !== at && along > 0 ? along + 2 * aside : Infinity;
      })?.focus();
    });
    map.addEventListener("change", () => {
      const shown = points.find((point) => point.getClientRects().length);
      if (!at.getClientRects().length && shown) show(shown);
    });
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());
  const links = new Map([...document.querySelectorAll("nav li a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver(
    (entries) => entries.forEach((entry) => links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting)),
    { rootMargin: "-15% 0px -70% 0px" },
  );
  document.querySelectorAll("main section").forEach((section) => seen.observe(section));
})();
