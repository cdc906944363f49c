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
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());
  const links = new Map([...document.querySelectorAll("nav li a")].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver(
    (entries) => entries.forEach((entry) => links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting)),
    { rootMargin: "-15% 0px -70% 0px" },
  );
  document.querySelectorAll("main section").forEach((section) => seen.observe(section));
})();
