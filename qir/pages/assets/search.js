"use strict";
// Search: every word must be somewhere in a node's texts; `op:Conv` asks one of them only.
const SHOWN = 100;

const FIELDS = {
  name: (record) => record.gives.map(([name]) => name).join(" ") || record.name,
  op: (record) => record.op,
  path: (record) => record.path,
  line: (record) =>
    record.lines
      .map(
        (line) =>
          `${DATA.lines[line].file}:${DATA.lines[line].line} ${DATA.lines[line].text} ${DATA.lines[line].scope}`,
      )
      .join("\n"),
  type: (record) => record.gives.map(([, type]) => type).join(" "),
  kind: (record) => record.kind,
  encoding: (record) => (encodingOf(record) || { text: "" }).text,
  weight: (record) =>
    record.reads
      .filter((read) => read && read.weight !== undefined)
      .map((read) => read.name)
      .join(" "),
};

/** The searched texts of a record, in lower case. */
function textsOf(record) {
  if (!record.texts) {
    const texts = Object.fromEntries(Object.entries(FIELDS).map(([name, read]) => [name, read(record).toLowerCase()]));
    texts.all = Object.values(texts).join("\n");
    Object.defineProperty(record, "texts", { value: texts });
  }
  return record.texts;
}

/** The leaves of a view that `query` finds, the best first: those with that very name or path, then those whose name begins with it. */
function search(view, query) {
  const words = query
    .toLowerCase()
    .split(/\s+/)
    .filter(Boolean)
    .map((word) => {
      const [field, rest] = [word.slice(0, word.indexOf(":")), word.slice(word.indexOf(":") + 1)];
      return field in FIELDS || field === "mark" ? { field, text: rest } : { field: "all", text: word };
    });
  const found = [];
  view.leaves.forEach((record, leaf) => {
    const texts = textsOf(record);
    if (words.every(({ field, text }) => (field === "mark" ? view.marks[leaf] : texts[field]).includes(text)))
      found.push(leaf);
  });
  const first = words.length ? words[0].text : "";
  const rank = (leaf) => {
    const { name, path, op } = textsOf(view.leaves[leaf]);
    return name === first || path === first ? 0 : name.startsWith(first) ? 1 : op.startsWith(first) ? 2 : 3;
  };
  return found
    .map((leaf) => [rank(leaf), leaf])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .map(([, leaf]) => leaf);
}

/** Show what is found below the field, and let keys choose there. `chosen` is called with a leaf, `changed` with all found. */
function searchField({ view, chosen, changed }) {
  const field = byId("query"),
    list = byId("results");
  let found = [],
    current = 0;

  const refresh = () => timed("search", answer);

  function answer() {
    const query = field.value.trim();
    found = query ? search(view(), query) : [];
    current = 0;
    byId("count").textContent = query ? `${found.length.toLocaleString("en")} found` : "";
    list.hidden = !found.length;
    field.setAttribute("aria-expanded", String(!list.hidden));
    list.replaceChildren(...found.slice(0, SHOWN).map(option));
    mark();
    changed(query ? found : null);
  }

  function option(leaf, position) {
    const record = view().leaves[leaf];
    const item = make(
      "li",
      { role: "option", id: `found-${position}` },
      make("strong", {}, record.op),
      make("code", {}, `%${record.name}`),
      make("span", { class: "where" }, lineOf(record) || record.path),
    );
    item.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      choose(leaf);
    });
    return item;
  }

  function mark() {
    [...list.children].forEach((item, position) => item.setAttribute("aria-selected", String(position === current)));
    if (list.children[current]) {
      list.children[current].scrollIntoView({ block: "nearest" });
      field.setAttribute("aria-activedescendant", `found-${current}`);
    } else field.removeAttribute("aria-activedescendant");
  }

  function clear() {
    field.value = "";
    refresh();
  }

  function choose(leaf) {
    list.hidden = true;
    chosen(leaf);
  }

  field.addEventListener("input", refresh);
  field.addEventListener("focus", () => {
    if (field.value.trim()) list.hidden = !found.length;
  });
  field.addEventListener("blur", () => {
    list.hidden = true;
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      current = Math.max(
        0,
        Math.min(Math.min(found.length, SHOWN) - 1, current + (event.key === "ArrowDown" ? 1 : -1)),
      );
      list.hidden = !found.length;
      mark();
    } else if (event.key === "Enter" && found.length) choose(found[current]);
    else if (event.key === "Escape") {
      clear();
      byId("graph").focus();
    } else return;
    event.preventDefault();
  });
  return { refresh, clear };
}
