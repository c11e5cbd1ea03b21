// The numbers of the page: pictures and maps of each record, as explorer_page.py packs them, and means over them.
"use strict";

const facts = JSON.parse(document.getElementById("facts").textContent);
const tileSize = facts.tile.width * facts.tile.height;

async function unpack(base64) {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function readNumbers(bytes) {
  let place = 0;
  const take = (count) => bytes.slice(place, (place += count));
  const readGrid = ({ size }) => {
    const maps = size[0] * size[1] * size[2] * size[3];
    const cells = size[4] * size[5];
    const floats = () => new Float32Array(take(4 * maps).buffer);
    return { lowest: floats(), span: floats(), places: take(maps * cells), cells };
  };
  const records = facts.names.map(() => {
    const picture = take(3 * tileSize);
    return { picture, grey: toGrey(picture), grids: facts.grids.map(readGrid) };
  });
  return { records, colours: take(3 * 256) };
}

// PIL's own conversion, to the letter.
function toGrey(picture) {
  const grey = new Uint8Array(tileSize);
  for (let i = 0; i < tileSize; i++) {
    grey[i] = (picture[3 * i] * 19595 + picture[3 * i + 1] * 38470 + picture[3 * i + 2] * 7471 + 0x8000) >> 16;
  }
  return grey;
}

// The map of one word: the mean over steps, layers and heads, or that of one of them.
function wordMap(record, view, word) {
  const { lowest, span, places, cells } = record.grids[view.grid];
  const [steps, layers, heads, words] = facts.grids[view.grid].size;
  const range = (chosen, count) => (chosen === null ? [...Array(count).keys()] : [chosen]);
  const values = new Float32Array(cells);
  let count = 0;
  for (const step of range(view.step, steps)) {
    for (const layer of range(view.layer, layers)) {
      for (const head of range(view.head, heads)) {
        const map = ((step * layers + layer) * heads + head) * words + word;
        const scale = span[map] / 255;
        for (let i = 0; i < cells; i++) values[i] += lowest[map] + scale * places[map * cells + i];
        count++;
      }
    }
  }
  return values.map((value) => value / count);
}

function highest(values) {
  return values.reduce((most, value) => Math.max(most, value), 0);
}

function lowest(values) {
  return values.reduce((least, value) => Math.min(least, value), Infinity);
}
