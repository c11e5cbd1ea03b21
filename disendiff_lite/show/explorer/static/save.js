// "Save picture": the cards that are shown as one PNG file, laid out as map_picture.py lays them out.

const SHEET = { margin: 16, gap: 14, header: 24, caption: 22, line: 20, bar: [150, 10], narrowest: 640 };
const FONT = '"DejaVu Sans", system-ui, sans-serif';
const INK = "rgb(27, 27, 27)";
const MUTED = "rgb(105, 105, 105)";

function makeSheet(cards, title) {
  const { margin, gap, header, caption, line, narrowest } = SHEET;
  const { width, height } = facts.tile;
  const columns = Math.min(cards, facts.columns);
  const cardHeight = header + facts.names.length * (height + caption) + gap;
  const top = margin + line * title.length + 30;
  const sheet = document.createElement("canvas");
  sheet.width = Math.max(2 * margin + columns * (width + gap) - gap, narrowest);
  sheet.height = top + Math.ceil(cards / columns) * cardHeight + 3 * margin;
  const pen = sheet.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, sheet.width, sheet.height);
  pen.textBaseline = "top";
  const place = (card) => [margin + (card % columns) * (width + gap), top + Math.floor(card / columns) * cardHeight];
  return { sheet, pen, top, place };
}

function write(pen, text, left, top, { colour = INK, size = 13, bold = false, right = false, room = Infinity } = {}) {
  pen.font = `${bold ? "bold " : ""}${size}px ${FONT}`;
  pen.fillStyle = colour;
  pen.textAlign = right ? "right" : "left";
  let cut = text;
  while (cut && pen.measureText(cut === text ? text : `${cut}…`).width > room) cut = cut.slice(0, -1);
  pen.fillText(cut === text ? text : `${cut}…`, left, top);
  return pen.measureText(text).width;
}

function wrapText(text, letters) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (longer.length > letters && lines.at(-1)) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}

function drawCard(pen, left, start, { label, role, tiles }) {
  const { width, height } = facts.tile;
  const taken = write(pen, role, left + width, start + 1, { colour: facts.colours[role], size: 12, right: true });
  write(pen, label, left, start, { size: 14, bold: true, room: width - taken - 6 });
  let top = start + SHEET.header;
  for (const { canvas, value, name } of tiles) {
    pen.drawImage(canvas, left, top);
    top += height + 4;
    const right = name !== "";
    const used = write(pen, value.textContent, right ? left + width : left, top, { colour: MUTED, size: 12, right });
    write(pen, name, left, top, { size: 12, room: width - used - 6 });
    top += SHEET.caption - 4;
  }
}

function drawSheet({ view, shown }) {
  const title = wrapText(facts.prompt, 90);
  const { sheet, pen, top, place } = makeSheet(shown.length, title);
  title.forEach((text, number) => write(pen, text, SHEET.margin, SHEET.margin + SHEET.line * number, { size: 15, bold: true }));
  write(pen, describe(view), SHEET.margin, top - 28, { colour: MUTED });
  shown.forEach((card, number) => drawCard(pen, ...place(number), card));
  const legend = sheet.height - 2 * SHEET.margin - 2;
  let left = SHEET.margin;
  left += write(pen, found("low").textContent, left, legend, { size: 12 }) + 8;
  pen.drawImage(found("bar"), left, legend + 3, ...SHEET.bar);
  left += SHEET.bar[0] + 8;
  left += write(pen, found("high").textContent, left, legend, { size: 12 }) + 16;
  write(pen, found("scale-label").textContent, left, legend, { colour: MUTED, size: 12 });
  return sheet;
}

function savePicture(shown) {
  drawSheet(shown).toBlob((blob) => {
    const step = shown.view.step === null ? "mean" : `step-${String(shown.view.step + 1).padStart(2, "0")}`;
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `attention-${step}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }, "image/png");
}
