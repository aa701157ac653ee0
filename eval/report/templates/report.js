"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const overview = byId("overview"), page = byId("model"), body = byId("table").tBodies[0];
  const title = document.title;
  const FIRST = 300;

  // Everything from a run becomes text here, never markup.
  function make(name, attributes, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }
  const shown = (value) => value === null || value === undefined ? "" : typeof value === "number"
    ? String(Number(value.toPrecision(4))) : String(value);

  function download(name, text) {
    const link = make("a", {href: URL.createObjectURL(new Blob([text], {type: "text/csv"})), download: name + ".csv"});
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  // As eval/csv_text.py: text must not become a formula in a spreadsheet.
  const FORMULA = /^(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])/, NUMBER = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$/i;
  const plain = (value) => typeof value === "string" && FORMULA.test(value) && !NUMBER.test(value) ? "'" + value : shown(value);
  const quote = (value) => /[",\r\n]/.test(value) ? '"' + value.replaceAll('"', '""') + '"' : value;
  const csv = (head, rows) => [head, ...rows].map((row) => row.map((v) => quote(plain(v))).join(",")).join("\n") + "\n";
  function csvButton(name, head, rows) {
    const button = make("button", {type: "button"}, "Download as CSV");
    button.addEventListener("click", () => download(name, csv(head, rows)));
    return make("p", {}, button);
  }
  for (const button of document.querySelectorAll("button[data-csv]")) {
    button.addEventListener("click", () => download(button.dataset.csv, data.csv[button.dataset.csv]));
  }

  // The verdict table: all rows are kept here, and only those that are looked at are in the document.
  const rows = [...body.rows].map((row) => ({
    row, words: row.textContent.toLowerCase(), label: row.dataset.label, verdict: row.dataset.verdict,
    keys: [...row.cells].map((cell) => cell.classList.contains("number")
      ? (cell.dataset.sort === undefined ? null : Number(cell.dataset.sort)) : cell.textContent.trim().toLowerCase()),
  }));
  let order = rows, limit = FIRST;

  function matching() {
    const words = byId("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = byId("verdict").value, label = byId("label").value;
    return order.filter((item) => (!verdict || item.verdict === verdict) && (!label || item.label === label)
      && words.every((word) => item.words.includes(word)));
  }
  function show() {
    const found = matching(), listed = found.slice(0, limit);
    body.replaceChildren(...listed.map((item) => item.row));
    const part = listed.length < found.length ? ", the first " + listed.length + " shown" : "";
    byId("count").textContent = found.length + " of " + rows.length + " models" + part;
    byId("more").hidden = listed.length === found.length;
  }
  function compare(one, other) {
    if (one === other) return 0;
    if (one === null || one === "") return 1;
    if (other === null || other === "") return -1;
    return typeof one === "number" ? one - other : one.localeCompare(other, "en", {numeric: true});
  }
  const heads = [...byId("table").tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const empty = (item) => item.keys[column] === null || item.keys[column] === "";
    order = [...rows].sort((a, b) => {
      const result = compare(a.keys[column], b.keys[column]);
      return down && !empty(a) && !empty(b) ? -result : result;  // what is not known stays last
    });
    show();
  }));
  let waiting = 0;
  byId("find").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 80);
  });
  byId("verdict").addEventListener("change", show);
  byId("label").addEventListener("change", show);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", () => { limit = Infinity; show(); });
  addEventListener("beforeprint", () => { limit = Infinity; show(); });
  show();

  // A model's page.
  function table(allHeads, allLines, caption, risky) {
    // What nothing was measured for is left out here; the CSV has it.
    const used = allHeads.map((_, i) => i < 2 || allLines.some((line) => shown(line[i]) !== ""));
    const head = allHeads.filter((_, i) => used[i]), lines = allLines.map((line) => line.filter((_, i) => used[i]));
    const top = make("tr", {}, ...head.map((name) => make("th", {scope: "col"}, name)));
    const all = lines.map((line, i) => make("tr", {class: risky && risky(i) ? "risk" : null},
      ...line.map((value) => make("td", {class: typeof value === "number" ? "number" : null}, shown(value)))));
    return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
      make("table", {class: "plain"}, make("thead", {}, top), make("tbody", {}, ...all)));
  }
  function heat(name, cells, classes) {
    // cells: "v,t" -> size, or null where no trigger was found; what is missing was not measured.
    const sizes = [...cells.values()].filter((size) => size !== null && size > 0).map(Math.log);
    const low = Math.min(...sizes), span = Math.max(...sizes) - low || 1, numbers = classes <= 12;
    const indices = [...Array(classes).keys()];
    const top = make("tr", {}, make("td", {class: "corner"}), ...indices.map((t) => make("th", {scope: "col"}, String(t))));
    const lines = indices.map((v) => make("tr", {}, make("th", {scope: "row"}, String(v)), ...indices.map((t) => {
      const key = v + "," + t;
      if (v === t || !cells.has(key)) return make("td", {title: v === t ? null : v + " to " + t + ": not measured"});
      const size = cells.get(key), words = v + " to " + t + ": ";
      if (size === null) return make("td", {class: "none", title: words + "no trigger found"}, numbers ? "none" : "");
      const depth = size > 0 ? 1 - (Math.log(size) - low) / span : 1;
      const cell = make("td", {class: depth > 0.6 ? "strong" : null, title: words + shown(size) + " pixels"},
        numbers ? (size >= 9.95 ? String(Math.round(size)) : size.toFixed(1)) : "");
      cell.style.setProperty("--depth", (0.08 + 0.87 * depth).toFixed(2));
      return cell;
    })));
    return make("div", {}, make("h4", {}, name), make("table", {class: numbers ? "heat" : "heat dense"},
      make("caption", {}, "victim in rows, target in columns; the stronger the colour, the smaller"), make("thead", {}, top), make("tbody", {}, ...lines)));
  }
  function fromMatrix(matrix, pairs) {
    return new Map(pairs.map(([v, t]) => [v + "," + t, matrix[v][t]]));
  }
  function fromCandidates(scan) {
    const [victim, target, kind, size] = ["victim", "target", "kind", "size"].map((name) => data.candidate.indexOf(name));
    const cells = new Map();
    for (const found of scan.candidates) {
      if (found[victim] !== null && found[kind] === "patch") cells.set(found[victim] + "," + found[target], found[size]);
    }
    return cells;
  }
  function distances(id, model) {
    const found = model.distances, parts = [], head = ["victim", "target", ...data.bounds, "at_risk"];
    if (found) {
      const maps = [["before", found.before], ["after hardening", found.after]].filter(([, matrix]) => matrix)
        .map(([name, matrix]) => heat(name, fromMatrix(matrix, found.pairs), matrix.length));
      const risky = found.pairs.filter((pair) => pair[pair.length - 1]).length;
      parts.push(make("h3", {}, "Class distances in pixels"), make("div", {class: "panels"}, ...maps),
        make("h3", {}, "The most similar class pairs"),
        make("p", {class: "note"}, risky + " of " + found.pairs.length + " pairs are at risk: below "
          + shown(found.risk_bound) + " pixels, which the scanner takes for injected. Every size is the smallest that was "
          + "found; the true one may be smaller."),
        table(["pair", ...data.bounds.map((name) => name.replaceAll("_", " "))],
          found.pairs.slice(0, 15).map((pair) => [pair[0] + " to " + pair[1], ...pair.slice(2, -1)]),
          "similar class pairs", (i) => found.pairs[i][found.pairs[i].length - 1]),
        csvButton(id + "-distances", head, found.pairs));
    } else {
      const scans = [["before", model.before], ["after hardening", model.after]].filter(([, scan]) => scan);
      const maps = scans.map(([name, scan]) => [name, fromCandidates(scan)]).filter(([, cells]) => cells.size);
      if (maps.length && model.classes <= 60) {
        parts.push(make("h3", {}, "Triggers that the scanner looked at in full, in pixels"),
          make("div", {class: "panels"}, ...maps.map(([name, cells]) => heat(name, cells, model.classes))),
          make("p", {class: "note"}, "Other pairs are empty: the scanner does not keep them. `trojai-moth card` measures all."));
      }
    }
    if (data.pictures[id]) {
      parts.push(make("h3", {}, "Classes and triggers of the riskiest pairs"), make("img", {src: data.pictures[id],
        alt: "For each of the riskiest class pairs: an image of both classes, the trigger, and an image with the trigger"}));
    }
    return parts;
  }
  // What is known of a trigger that is shown: the first candidate of its pair.
  function known(scan, victim, target) {
    const at = (name) => data.candidate.indexOf(name);
    const found = scan.candidates.find((line) => line[at("victim")] === victim && line[at("target")] === target
      && line[at("kind")] === "patch");
    if (!found) return "";
    const share = (name) => found[at(name)] === null ? null : Math.round(100 * found[at(name)]) + " %";
    const words = [found[at("size")] === null ? "did not work often enough" : shown(found[at("size")]) + " pixels"];
    words.push("turns " + share("success") + " of the images that it was searched on");
    if (share("held_success")) words.push(share("held_success") + " of " + found[at("held_images")] + " held back");
    if (share("left_out_success")) words.push(share("left_out_success") + " of those left out of the search");
    if (share("jitter_success")) words.push(share("jitter_success") + " of those moved a little");
    if (found[at("reverse_size")] !== null) words.push("the way back takes " + shown(found[at("reverse_size")]) + " pixels");
    return ": " + words.join(", ");
  }
  function triggers(id, stage, scan) {
    const strips = (data.triggers[id] || {})[stage] || [];
    if (!strips.length) return [];
    return [make("p", {class: "note"}, "From left to right: " + data.parts.join(", ") + "."),
      ...strips.map(([victim, target, uri]) => {
        const pair = (victim === null ? "any" : victim) + " to " + target;
        return make("figure", {class: "strip"}, make("img", {src: uri, alt: pair + ": " + data.parts.join(", ")}),
          make("figcaption", {}, pair + known(scan, victim, target)));
      })];
  }
  function evidence(id, model) {
    const parts = [];
    for (const [stage, words] of [["before", "First scan"], ["after", "Scan after hardening"]]) {
      const scan = model[stage];
      if (!scan) continue;
      parts.push(make("h3", {}, words), make("p", {}, scan.scanner + " says " + scan.outcome + ": " + scan.reason),
        ...triggers(id, stage, scan));
      if (scan.candidates.length) {
        parts.push(table(data.candidate.map((name) => name.replaceAll("_", " ")),
          scan.candidates.map((line) => line.map((value, i) => i === 0 && value === null ? "any" : value)), words),
        csvButton(id + "-" + stage, data.candidate, scan.candidates));
      }
    }
    return parts;
  }
  function why(model) {
    const parts = [];
    if (model.blind) {
      parts.push(make("h3", {}, "The blind verdict"), make("p", {}, model.blind.reason));
      if (model.blind.parts.length) {
        parts.push(table(["what was found", "feature", "value", "speaks for injected"], model.blind.parts, "evidence"));
      }
    }
    if (model.hardening) {
      const [before, after, images] = model.hardening.accuracy;
      parts.push(make("h3", {}, "Hardening"), make("p", {}, model.hardening.hardener + ", " + shown(model.hardening.seconds)
        + " seconds; " + model.hardening.stopped + ". Accuracy " + shown(before) + " before and " + shown(after)
        + " after, on " + images + " images."),
      table(["round", "accuracy", "loss", "taken back"],
        model.hardening.rounds.map((line) => [...line.slice(0, 3), line[3] ? "yes" : ""]), "rounds of hardening"),
      csvButton("hardening", ["round", "accuracy", "loss", "taken_back"], model.hardening.rounds));
    }
    return parts;
  }
  function open(id) {
    const item = rows.find((found) => found.row.cells[0].textContent === id), model = data.models[id];
    const back = make("a", {href: "#"}, "Back to all models");
    const steps = [back];
    const list = matching().map((found) => found.row.cells[0].textContent), at = list.indexOf(id);
    if (at > 0) steps.push(make("a", {href: "#model/" + encodeURIComponent(list[at - 1])}, "Previous"));
    if (at >= 0 && at + 1 < list.length) steps.push(make("a", {href: "#model/" + encodeURIComponent(list[at + 1])}, "Next"));
    const cells = [...item.row.cells].slice(1).filter((cell) => cell.textContent.trim());
    const facts = [...cells.map((cell) => [cell.dataset.name, cell.textContent.trim()]), ...model.facts];
    const list2 = make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const head = make("h2", {id: "model-title", tabindex: "-1"}, id);
    page.replaceChildren(make("nav", {"aria-label": "Models"}, ...steps), head, list2, ...why(model),
      ...distances(id, model), ...evidence(id, model));
    overview.hidden = true;
    page.hidden = false;
    document.title = id + " - " + title;
    scrollTo(0, 0);
    head.focus();
  }
  let from = null;
  function route() {
    const match = /^#model\/(.+)$/.exec(location.hash);
    let id = null;
    try { id = match && decodeURIComponent(match[1]); } catch { id = null; }
    if (id !== null && Object.hasOwn(data.models, id)) { from = id; open(id); return; }
    if (page.hidden) return;
    page.hidden = true;
    overview.hidden = false;
    document.title = title;
    const item = rows.find((found) => found.row.cells[0].textContent === from);
    if (item && item.row.isConnected) item.row.querySelector("a").focus();
  }
  addEventListener("hashchange", route);
  addEventListener("keydown", (event) => { if (event.key === "Escape" && !page.hidden) location.hash = ""; });
  route();
})();
