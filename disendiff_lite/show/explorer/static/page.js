// The page: its controls, its cards, and what happens when a control is moved. The words are those of the widget.

const PLAY_EVERY = 300; // milliseconds
const found = (id) => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A card is a heading and, for each record, a tile with a line of text under it; `word` is null for the pictures' own card.
function makeCard(word) {
  const { label, role } = word === null ? { label: "picture", role: "" } : facts.words[word];
  const tiles = facts.names.map((name) => {
    const canvas = element("canvas", { width: facts.tile.width, height: facts.tile.height, className: facts.tile.crisp ? "crisp" : "" });
    canvas.setAttribute("role", "img");
    const value = element("span", { className: "value" });
    return { canvas, value, name, figure: element("figure", {}, canvas, element("figcaption", {}, element("span", {}, name), value)) };
  });
  const heading = element("h2", {}, element("span", {}, label), element("small", { className: role }, role));
  const card = element("section", {}, heading, ...tiles.map(({ figure }) => figure));
  return { word, label, role, tiles, card };
}

function fillControls() {
  found("prompt").textContent = facts.prompt;
  found("cards").className = facts.names.length > 1 ? "pairs" : "";
  facts.words.forEach(({ label, role, shown }, word) => {
    const box = element("input", { type: "checkbox", checked: shown, value: String(word) });
    found("words").append(element("label", { className: `chip ${role}` }, box, element("span", {}, label), element("small", {}, role)));
  });
  found("step").max = String(facts.steps.length - 1);
  found("strength").value = String(facts.strength);
  facts.grids.forEach(({ name }, grid) => found("grid").append(new Option(name, String(grid))));
  found("grid-choice").hidden = facts.grids.length === 1;
  offerLayers();
}

function offerLayers() {
  const { layers, size } = facts.grids[Number(found("grid").value)];
  const mean = (count) => new Option(`mean of ${count}`, "mean");
  found("layer").replaceChildren(mean(layers.length), ...layers.map((layer, number) => new Option(layer, String(number))));
  const heads = Array.from({ length: size[2] }, (_, head) => new Option(`${head + 1} of ${size[2]}`, String(head)));
  found("head").replaceChildren(mean(size[2]), ...heads);
}

function readView() {
  const number = (id) => (found(id).value === "mean" ? null : Number(found(id).value));
  const step = Number(found("step").value);
  return {
    words: [...document.querySelectorAll("#words input:checked")].map((box) => Number(box.value)),
    grid: Number(found("grid").value),
    step: step === 0 ? null : step - 1,
    layer: number("layer"),
    head: number("head"),
    strength: Number(found("strength").value),
    shared: found("scale").value === "shared",
  };
}

function describe(view) {
  const { name, layers, size } = facts.grids[view.grid];
  const layer = view.layer === null ? `mean of ${layers.length} layers` : layers[view.layer];
  const head = view.head === null ? `mean of ${size[2]} heads` : `head ${view.head + 1} of ${size[2]}`;
  return [facts.steps[view.step === null ? 0 : view.step + 1], `${name} maps`, layer, head].join(", ");
}

// Shows the view and returns what "save picture" needs.
function show({ records, colours }, cards) {
  const view = readView();
  const maps = view.words.map((word) => records.map((record) => wordMap(record, view, word)));
  const top = highest(maps.flat().map(highest));
  const shown = [cards.picture, ...view.words.map((word) => cards.words[word])];
  view.words.forEach((word, column) => {
    cards.words[word].tiles.forEach(({ canvas, value, name }, row) => {
      const values = maps[column][row];
      drawMap(canvas, values, top, records[row], view, colours);
      const most = highest(values).toFixed(4);
      value.textContent = view.shared ? `max ${most}` : `${lowest(values).toFixed(4)} to ${most}`;
      canvas.setAttribute("aria-label", `Attention of ${facts.words[word].label} ${name}, ${value.textContent}`);
    });
  });
  if (shown.length !== found("cards").children.length || shown.some(({ card }, i) => found("cards").children[i] !== card)) {
    found("cards").replaceChildren(...shown.map(({ card }) => card));
  }
  drawBar(found("bar"), view.strength, colours);
  found("low").textContent = view.shared ? "0" : "lowest";
  found("high").textContent = view.shared ? top.toFixed(4) : "highest";
  found("scale-label").textContent = view.words.length ? facts.scales[view.shared ? "shared" : "own"] : "Choose a word to see its map.";
  found("step-label").textContent = facts.steps[view.step === null ? 0 : view.step + 1];
  found("step").setAttribute("aria-valuetext", found("step-label").textContent);
  return { view, shown };
}

async function start() {
  const numbers = readNumbers(await unpack(found("numbers").textContent));
  const cards = { picture: makeCard(null), words: facts.words.map((_, word) => makeCard(word)) };
  cards.picture.tiles.forEach(({ canvas, name }, row) => {
    drawPicture(canvas, numbers.records[row].picture);
    canvas.setAttribute("aria-label", `The picture ${name}`);
  });
  fillControls();
  let shown = show(numbers, cards);
  const update = () => (shown = show(numbers, cards));
  found("grid").addEventListener("change", offerLayers);
  for (const control of found("controls").elements) {
    control.addEventListener(control.tagName === "SELECT" ? "change" : "input", update);
  }
  found("controls").addEventListener("submit", (event) => event.preventDefault());
  found("save").addEventListener("click", () => savePicture(shown));
  makePlayable(update);
}

// The play button goes through the steps once, from the first if the last is shown.
function makePlayable(update) {
  const [button, slider] = [found("play"), found("step")];
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.className = "";
    button.setAttribute("aria-label", "Play the steps");
  };
  const advance = () => {
    if (slider.value === slider.max) return stop();
    slider.value = String(Number(slider.value) + 1);
    update();
  };
  button.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (slider.value === slider.max) slider.value = "0";
    button.className = "playing";
    button.setAttribute("aria-label", "Stop");
    timer = setInterval(advance, PLAY_EVERY);
    advance();
  });
  slider.addEventListener("input", stop);
}

// Within a report the page is light, as the report is, and tells it how high it is.
function fitReport() {
  if (window.parent === window) return;
  document.documentElement.className = "within";
  const height = () => Math.ceil(document.documentElement.getBoundingClientRect().height);
  const tell = () => window.parent.postMessage({ explorerHeight: height() }, "*");
  new ResizeObserver(tell).observe(document.documentElement);
}

fitReport();
start().catch((error) => {
  found("trouble").textContent = `The maps cannot be shown: ${error.message}. A browser of 2023 or newer is needed.`;
  found("trouble").hidden = false;
});
