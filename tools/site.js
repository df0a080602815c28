// What the site does beyond smalldocs.js, which follows: a search that works from file:// and puts names first, names
// for what is not text, scrolling by keyboard, sources that open under a link.
(() => {
  "use strict";
  const all = (where, change) => document.querySelectorAll(where).forEach(change);

  // A browser fetches no JSON from file://, but it runs a script from there.
  window.loadSearchIndex = (offset) => new Promise((resolve, reject) => {
    if (window.siteSearchIndex) { resolve(window.siteSearchIndex); return; }
    const script = document.createElement("script");
    script.src = offset + "site_libs/search-index.js";
    script.onload = () => resolve(window.siteSearchIndex);
    script.onerror = reject;
    document.head.append(script);
  });

  // Every word must occur. First comes the name that was typed, then pages that are about it, then headings and texts.
  const rank = (entry, typed, query, words) => {
    const [section, title, text, keywords] = [entry.section, entry.title, entry.text, entry.keywords || ""].map((part) => part.toLowerCase());
    let points = 0;
    for (const word of words) {
      const whole = section.split(/[^\p{L}\p{N}]+/u).includes(word);  // `fit` is not what `profit` is about
      const inHead = whole ? 20 : [section, title, keywords].some((part) => part.includes(word)) ? 8 : 0;
      if (!inHead && !text.includes(word)) return 0;
      points += inHead + Math.min(text.split(word).length - 1, 5);
    }
    const isPage = !section, isMember = section && entry.href.startsWith("reference/");
    if (section === query) points += isMember ? 300 : 80;
    if (isMember) return points + (entry.section === typed ? 10 : 0) + (section.endsWith(`.${query}`) ? 100 : -15);
    if (isPage && keywords.split(", ").includes(query)) points += 200;
    if (isPage && words.every((word) => title.includes(word))) points += 120;
    if (isPage && entry.href.startsWith("tutorials/")) points += 20;
    return points + (entry.href.startsWith("reference/index") ? -30 : 0);
  };
  const few = (hits, limit) => {  // no page fills the list
    const seen = {};
    return hits.filter(({ item }) => (seen[item.href.split("#")[0]] = (seen[item.href.split("#")[0]] || 0) + 1) <= 4).slice(0, limit);
  };
  const Fuzzy = window.Fuse;
  window.Fuse = class {
    constructor(list, options) { this.list = list; this.options = options; }
    search(query, { limit }) {
      const lower = query.toLowerCase(), words = lower.split(/\s+/).filter(Boolean);
      const hits = this.list.map((item) => ({ item, points: rank(item, query, lower, words) })).filter((hit) => hit.points > 0);
      if (hits.length) return few(hits.sort((a, b) => b.points - a.points), limit);
      this.fuzzy ||= new Fuzzy(this.list, { ...this.options, keys: ["title", "section"] });  // a slip of the finger
      return this.fuzzy.search(query, { limit });
    }
  };

  // What has no name for a reader who does not see the page.
  Object.entries({
    "nav.navbar": { ariaLabel: "Site" },
    ".quarto-secondary-nav": { ariaLabel: "Section" },
    "#quarto-sidebar": { ariaLabel: "Pages" },
    "#TOC": { ariaLabel: "On this page" },
    ".quarto-title-breadcrumbs": { ariaLabel: "Where this page is" },
    ".page-navigation": { ariaLabel: "Previous and next page" },
    ".quarto-color-scheme-toggle": { role: "button", ariaLabel: "Dark or light" },
    ".bi": { ariaHidden: "true" },
    ".smalldocs-search-results": { role: "region", ariaLabel: "Search results", ariaLive: "polite" },
  }).forEach(([where, names]) => all(where, (element) => Object.assign(element, names)));

  // Sentences in an output break, tables of text keep their lines; long names break at their underscores.
  all(".cell-output > pre", (pre) => {
    const lines = pre.textContent.trim().split("\n");
    pre.classList.toggle("sentence", lines.length === 1 || lines.some((line) => line.length > 100));
  });
  all("#TOC a", (link) => { link.innerHTML = link.innerHTML.replaceAll("_", "_<wbr>"); });
  all("main table:not(.dataframe)", (table) => {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent);
    table.classList.toggle("described", heads.length === 3 && heads[2] === "meaning");
  });

  // What scrolls sideways can be reached with the Tab key, and only then.
  const boxes = "pre, .sd-table, .math.display, .scroll, .cell-output, #quarto-sidebar, #quarto-margin-sidebar";
  const mark = () => all(boxes, (box) => {
    const over = box.scrollWidth > box.clientWidth || (box.scrollHeight > box.clientHeight + 1 && box.tagName !== "PRE");
    const scrolls = over && /auto|scroll/.test(getComputedStyle(box).overflowX + getComputedStyle(box).overflowY);
    if (scrolls) box.tabIndex = 0; else box.removeAttribute("tabindex");
    const more = () => box.classList.toggle("has-more", scrolls && box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    box.onscroll = more;
    more();
  });
  window.addEventListener("resize", mark);
  document.addEventListener("toggle", mark, true);  // what was folded has a width only once it is open

  // A link to a name opens the source under it.
  const unfold = () => {
    const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const cell = place && place.closest("p") && place.closest("p").nextElementSibling;
    const fold = cell && cell.querySelector(":scope > details.code-fold, :scope > * > details.code-fold");
    if (fold) fold.open = true;
  };
  window.addEventListener("hashchange", unfold);

  window.addEventListener("load", () => {
    // The link beside a heading would be read as a part of its name; the table of contents has the same links.
    all(".anchorjs-link", (link) => { link.ariaHidden = "true"; link.tabIndex = -1; });
    mark();
    unfold();
  });
})();
