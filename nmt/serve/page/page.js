"use strict";
// The page of nmt serve. Each line of the source is translated and cached separately.

const TYPING_DELAY = 250; // milliseconds without a key press before a request
const LINES_PER_REQUEST = 16;
const ALTERNATIVES = 3;
const STEP_DURATION = 1200; // milliseconds per word
const MAX_CACHED = 2000; // lines

const element = id => document.getElementById(id);
const source = element("source");
const mirror = element("mirror");
const target = element("target");

const cache = new Map(); // line -> {text, alternatives, alignment, flags}
let settings = { charLimit: -1, keyRequired: false };
let request = null; // AbortController of the request in progress
let timer = null;
let pinned = null; // [line, "word" or "character", index]

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function setStatus(text) {
  element("status").textContent = text;
}

// Translation

function lines() {
  return source.value.split("\n");
}

async function post(texts, signal) {
  const body = { q: texts, source: "zh", target: "en", alternatives: ALTERNATIVES, nmt: true };
  if (settings.keyRequired) body.api_key = element("key").value;
  const response = await fetch("translate", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function translate() {
  request?.abort();
  const current = new AbortController();
  request = current;
  const missing = [...new Set(lines())].filter(line => line.trim() && !cache.has(line));
  render();
  target.setAttribute("aria-busy", String(missing.length > 0));
  setStatus("");
  try {
    for (let begin = 0; begin < missing.length; begin += LINES_PER_REQUEST) {
      const texts = missing.slice(begin, begin + LINES_PER_REQUEST);
      const answer = await post(texts, current.signal);
      texts.forEach((line, index) => cache.set(line, {
        text: answer.translatedText[index],
        alternatives: answer.alternatives[index],
        alignment: answer.alignment[index][0] ?? null,
        flags: answer.flags[index][0] ?? [],
      }));
      while (cache.size > MAX_CACHED) cache.delete(cache.keys().next().value);
      if (request === current) render();
    }
  } catch (error) {
    if (error.name === "AbortError") return;
    setStatus(error instanceof TypeError ? "The server does not answer." : error.message);
  }
  if (request === current) target.setAttribute("aria-busy", "false");
}

function schedule() {
  clearTimeout(timer);
  timer = setTimeout(translate, TYPING_DELAY);
  drawMirror();
  const limit = settings.charLimit;
  const length = [...source.value].length;
  element("count").textContent = limit < 0 ? (length || "") : `${length} / ${limit}`;
  element("clear").hidden = !length;
}

// Source and translation

function drawMirror() {
  mirror.replaceChildren();
  lines().forEach((line, number) => {
    [...line].forEach((character, index) => {
      const span = make("span", { textContent: character });
      span.dataset.line = number;
      span.dataset.index = index;
      mirror.append(span);
    });
    mirror.append("\n");
  });
  mirror.append("\u200b");
}

function render() {
  pinned = null;
  drawMirror();
  const texts = lines();
  const before = [...target.children].map(block => block.querySelector("p")?.textContent ?? "");
  target.replaceChildren(...texts.map((line, number) => cache.has(line) || !line.trim()
    ? drawLine(cache.get(line), number)
    : make("div", { className: "line stale" }, make("p", { textContent: before[number] ?? "" }))));
  element("copy").disabled = !texts.some(line => cache.has(line));
  drawChoices();
}

function drawLine(result, number) {
  const block = make("div", { className: "line" });
  if (!result) return block;
  const words = result.alignment?.words ?? [];
  const paragraph = make("p");
  if (words.length === 0) paragraph.textContent = result.text;
  words.forEach((word, index) => {
    const span = make("span", { className: "word", textContent: word });
    span.tabIndex = index === 0 ? 0 : -1;
    span.dataset.line = number;
    span.dataset.index = index;
    paragraph.append(span, " ");
  });
  block.append(paragraph);
  if (result.flags.length) {
    block.append(make("ul", { className: "flags", ariaLabel: "Possible errors" },
      ...result.flags.map(flag => make("li", { textContent: `${flag.name}: ${flag.detail}` }))));
  }
  if (result.alternatives.length) {
    block.append(make("details", {},
      make("summary", { textContent: "Alternatives" }),
      make("ol", {}, ...result.alternatives.map(text => make("li", { textContent: text })))));
  }
  return block;
}

// Attention between the two

// Offsets of the interface count code points, as [...text] does.
function weight(line, word, character) {
  return cache.get(lines()[line])?.alignment?.weights[word]?.[character] ?? 0;
}

function spansOf(root, line) {
  return root.querySelectorAll(`span[data-line="${line}"]`);
}

function highlight(selection) {
  for (const span of document.querySelectorAll("#mirror span, .word")) {
    span.style.setProperty("--w", 0);
    span.classList.remove("picked");
  }
  if (!selection) return;
  const [line, side, picked] = selection;
  const [near, opposite] = side === "word" ? [target, mirror] : [mirror, target];
  spansOf(near, line)[picked]?.classList.add("picked");
  spansOf(opposite, line).forEach((span, index) => span.style.setProperty("--w",
    side === "word" ? weight(line, picked, index) : weight(line, index, picked)));
}

function announce(line, word) {
  const alignment = cache.get(lines()[line])?.alignment;
  if (!alignment) return;
  const attended = alignment.weights[word]
    .map((value, index) => [value, alignment.characters[index]])
    .filter(([value]) => value >= 0.1)
    .sort((first, second) => second[0] - first[0])
    .map(([value, character]) => `${character} ${Math.round(100 * value)} %`);
  element("announcement").textContent = `${alignment.words[word]}: ${attended.join(", ")}`;
}

function selectionAt(event) {
  for (const node of document.elementsFromPoint(event.clientX, event.clientY)) {
    if (node.tagName === "SPAN" && node.dataset.line !== undefined) {
      const side = node.classList.contains("word") ? "word" : "character";
      return [Number(node.dataset.line), side, Number(node.dataset.index)];
    }
  }
  return null;
}

for (const area of [source, target]) {
  area.addEventListener("pointermove", event => {
    if (event.pointerType === "mouse") highlight(selectionAt(event) ?? pinned);
  });
  area.addEventListener("pointerleave", () => highlight(pinned));
  area.addEventListener("click", event => {
    const selection = selectionAt(event);
    pinned = String(selection) === String(pinned) ? null : selection;
    highlight(pinned);
  });
}

target.addEventListener("focusin", event => {
  if (!event.target.classList.contains("word")) return;
  const { line, index } = event.target.dataset;
  highlight([Number(line), "word", Number(index)]);
  announce(Number(line), Number(index));
});
target.addEventListener("focusout", () => highlight(pinned));
target.addEventListener("keydown", event => {
  if (!event.target.classList.contains("word")) return;
  const words = [...event.target.parentElement.querySelectorAll(".word")];
  const index = words.indexOf(event.target);
  const next = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: words.length - 1 };
  const word = words[next[event.key]];
  if (!word) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  word.tabIndex = 0;
  word.focus();
});

source.addEventListener("input", schedule);
element("key").addEventListener("input", schedule);
element("clear").addEventListener("click", () => {
  source.value = "";
  schedule();
  source.focus();
});
element("copy").addEventListener("click", async () => {
  const text = lines().map(line => cache.get(line)?.text ?? "").join("\n");
  const button = element("copy");
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed"; // without HTTPS, other hosts than localhost
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});

// Attention step by step

const lesson = { alignment: null, step: 0, player: null };

function drawChoices() {
  const choices = [...new Set(lines())].filter(line => cache.get(line)?.alignment?.words.length);
  const select = element("line");
  const before = select.value;
  select.replaceChildren(...choices.map(line => make("option", { value: line, textContent: line })));
  if (choices.includes(before)) select.value = before;
  element("lesson").hidden = choices.length === 0;
  element("no-lesson").hidden = choices.length > 0;
  element("line").closest("p").hidden = choices.length === 0;
  if (select.value !== before || !lesson.alignment) startLesson();
}

function startLesson() {
  pause();
  lesson.alignment = cache.get(element("line").value)?.alignment ?? null;
  if (!lesson.alignment) return;
  const { characters, words, weights } = lesson.alignment;
  element("step").max = words.length - 1;
  element("bars").replaceChildren(...characters.map(character => make("div",
    { className: "column" }, make("span"), make("i"), make("b", { lang: "zh", textContent: character }))));
  const head = make("tr", {}, make("th"),
    ...characters.map(character => make("th", { scope: "col", textContent: character })));
  const rows = words.map((word, i) => {
    const title = make("th", { scope: "row", textContent: word });
    title.addEventListener("click", () => show(i));
    return make("tr", {}, title, ...characters.map((_, j) => {
      const cell = make("td", { title: weights[i][j].toFixed(2) });
      cell.style.setProperty("--w", weights[i][j]);
      return cell;
    }));
  });
  element("matrix").replaceChildren(make("thead", { lang: "zh" }, head), make("tbody", {}, ...rows));
  show(0);
}

function show(step) {
  const { characters, words, weights } = lesson.alignment;
  lesson.step = Math.max(0, Math.min(step, words.length - 1));
  const row = weights[lesson.step];
  const largest = Math.max(...weights.flat()); // the tallest bar of all words
  element("step").value = lesson.step;
  element("step").setAttribute("aria-valuetext", words[lesson.step]);
  element("written").replaceChildren(...words.flatMap((word, i) => {
    const state = i < lesson.step ? "done" : i === lesson.step ? "now" : "later";
    return [make("span", { className: state, textContent: word }), " "];
  }));
  [...element("bars").children].forEach((column, j) => {
    column.children[0].textContent = row[j] >= 0.005 ? `${Math.round(100 * row[j])} %` : "";
    column.children[1].style.height = `${(72 * row[j] / largest).toFixed(2)}%`;
  });
  const best = row.indexOf(Math.max(...row));
  element("caption").textContent = `Word ${lesson.step + 1} of ${words.length}, `
    + `“${words[lesson.step]}”: largest weight on ${characters[best]} `
    + `(${Math.round(100 * row[best])} %)`;
  [...element("matrix").tBodies[0].rows].forEach((tableRow, i) => {
    tableRow.className = i < lesson.step ? "" : i === lesson.step ? "now" : "later";
  });
  element("previous").disabled = lesson.step === 0;
  element("next").disabled = lesson.step === words.length - 1;
}

function pause() {
  clearInterval(lesson.player);
  lesson.player = null;
  element("play").textContent = "Play";
}

function play() {
  if (lesson.step === lesson.alignment.words.length - 1) show(0);
  element("play").textContent = "Pause";
  lesson.player = setInterval(() => {
    show(lesson.step + 1);
    if (lesson.step === lesson.alignment.words.length - 1) pause();
  }, STEP_DURATION);
}

element("line").addEventListener("change", startLesson);
element("play").addEventListener("click", () => lesson.player ? pause() : play());
element("previous").addEventListener("click", () => { pause(); show(lesson.step - 1); });
element("next").addEventListener("click", () => { pause(); show(lesson.step + 1); });
element("step").addEventListener("input", event => { pause(); show(Number(event.target.value)); });

// Views

const tabs = [element("tab-translate"), element("tab-steps")];

function openTab(tab) {
  for (const each of tabs) {
    each.setAttribute("aria-selected", String(each === tab));
    each.tabIndex = each === tab ? 0 : -1;
    element(each.getAttribute("aria-controls")).hidden = each !== tab;
  }
  if (tab !== tabs[1]) pause();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => openTab(tab));
  tab.addEventListener("keydown", event => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const next = tabs[1 - tabs.indexOf(tab)];
    openTab(next);
    next.focus();
  });
}

fetch("frontend/settings").then(response => response.json()).then(answer => {
  settings = answer;
  element("key-row").hidden = !settings.keyRequired;
}).finally(() => { schedule(); source.focus(); });
