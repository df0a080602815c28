// What the site does beyond smalldocs.js: a search that works from file:// and puts names first; scrolling by keyboard.
(() => {
  "use strict";

  // A browser fetches no JSON from file://, but it runs a script from there.
  window.loadSearchIndex = (offset) => new Promise((resolve, reject) => {
    if (window.siteSearchIndex) { resolve(window.siteSearchIndex); return; }
    const script = document.createElement("script");
    script.src = offset + "site_libs/search-index.js";
    script.onload = () => resolve(window.siteSearchIndex);
    script.onerror = reject;
    document.head.append(script);
  });

  // Every word must occur; a heading that is the query comes first, then headings with its words, then texts.
  const rank = (entry, typed, query, words) => {
    const section = entry.section.toLowerCase(), title = entry.title.toLowerCase(), text = entry.text.toLowerCase();
    let points = 0;
    for (const word of words) {
      const inHead = section.includes(word) ? 20 : title.includes(word) ? 10 : 0;
      if (!inHead && !text.includes(word)) return 0;
      points += inHead + Math.min(text.split(word).length - 1, 5);
    }
    if (section === query) points += entry.section === typed ? 210 : 200;
    else if (title === query && !section) points += 150;
    else if (section.startsWith(query)) points += 60;
    else if (title.startsWith(query)) points += 40;
    return points + (entry.href.startsWith("reference/index") ? -30 : 0);
  };
  const Fuzzy = window.Fuse;
  window.Fuse = class {
    constructor(list, options) { this.list = list; this.options = options; }
    search(query, { limit }) {
      const lower = query.toLowerCase(), words = lower.split(/\s+/).filter(Boolean);
      const hits = this.list.map((item) => ({ item, points: rank(item, query, lower, words) })).filter((hit) => hit.points > 0);
      if (hits.length) return hits.sort((a, b) => b.points - a.points).slice(0, limit);
      this.fuzzy ||= new Fuzzy(this.list, { ...this.options, keys: ["title", "section"] });  // a slip of the finger
      return this.fuzzy.search(query, { limit });
    }
  };

  // What scrolls sideways can be reached with the Tab key, and only then.
  const boxes = "pre, .sd-table, .math.display, .scroll, .cell-output, #quarto-sidebar, #quarto-margin-sidebar";
  const mark = () => document.querySelectorAll(boxes).forEach((box) => {
    const over = box.scrollWidth > box.clientWidth || (box.scrollHeight > box.clientHeight + 1 && box.tagName !== "PRE");
    const scrolls = over && /auto|scroll/.test(getComputedStyle(box).overflowX + getComputedStyle(box).overflowY);
    if (scrolls) box.tabIndex = 0; else box.removeAttribute("tabindex");
    const more = () => box.classList.toggle("has-more", scrolls && box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    box.onscroll = more;
    more();
  });
  window.addEventListener("load", mark);
  document.addEventListener("toggle", mark, true);  // what was folded has a width only once it is open
  window.addEventListener("resize", mark);
})();
