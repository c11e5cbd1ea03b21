// From numbers to pixels: maps over grey pictures, the pictures themselves, and the legend's colours.

function opacities(strength) {
  const low = strength ** 2;
  const high = strength * (2 - strength);
  return Float32Array.from({ length: 256 }, (_, i) => low + ((high - low) * i) / 255);
}

function blend(target, at, grey, place, opacity, colours) {
  const alpha = opacity[place];
  for (let c = 0; c < 3; c++) target[at + c] = grey * (1 - alpha) + colours[3 * place + c] * alpha;
  target[at + 3] = 255;
}

function drawMap(canvas, values, top, record, view, colours) {
  const { width, height } = facts.tile;
  const [h, w] = facts.grids[view.grid].size.slice(4);
  const bottom = view.shared ? 0 : lowest(values);
  const span = view.shared ? Math.max(top, 1e-8) : highest(values) - bottom + 1e-8;
  const places = values.map((value) => Math.round((255 * (value - bottom)) / span));
  const opacity = opacities(view.strength);
  const image = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * h) / height) * w;
    for (let x = 0; x < width; x++) {
      const place = places[row + Math.floor(((x + 0.5) * w) / width)];
      blend(image.data, 4 * (y * width + x), record.grey[y * width + x], place, opacity, colours);
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function drawPicture(canvas, picture) {
  const image = new ImageData(facts.tile.width, facts.tile.height);
  for (let i = 0; i < tileSize; i++) {
    image.data.set(picture.subarray(3 * i, 3 * i + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// The colour scale as it looks over a middle grey.
function drawBar(canvas, strength, colours) {
  const image = new ImageData(256, 1);
  const opacity = opacities(strength);
  for (let place = 0; place < 256; place++) blend(image.data, 4 * place, 128, place, opacity, colours);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
