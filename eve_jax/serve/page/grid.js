// An image as the model reads it: stretched to its whole patches, with their borders drawn over it.

import { counted, el, number, svg } from "./dom.js";
import { urlOf } from "./images.js";

const path = (rows, columns) => {
  let d = "";
  for (let x = 1; x < columns; x++) d += `M${x} 0V${rows}`;
  for (let y = 1; y < rows; y++) d += `M0 ${y}H${columns}`;
  return d;
};

// A frame of the image, with the grid when `image.rows` is known and `shown`.
export function framed(image, { shown = true, url = urlOf(image), alt = image.name } = {}) {
  const frame = el("div", { class: "frame" });
  const [columns, rows] = image.rows ? [image.columns, image.rows] : [image.width, image.height];
  frame.style.setProperty("--ratio", `${columns} / ${rows}`);
  frame.style.setProperty("--wide", String(columns / rows));
  frame.append(url ? el("img", { src: url, alt, draggable: false }) : el("p", { class: "gone muted small" }, "This image is no longer in the browser’s storage"));
  if (image.rows && shown) frame.append(lines(image.rows, image.columns));
  return frame;
}

function lines(rows, columns) {
  const d = path(rows, columns);
  return svg(
    "svg",
    { class: "grid", viewBox: `0 0 ${columns} ${rows}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { d, class: "under" }),
    svg("path", { d, class: "over" }),
  );
}

// A part of a line that breaks between its parts only.
export const unbroken = (part) => part.replaceAll(" ", "\u00a0");

// "1200×800 pixels, 20×30 patches, 621 tokens"
export function described(image) {
  const parts = [`${image.width}×${image.height} pixels`];
  if (image.rows) parts.push(`${image.columns}×${image.rows} patches`, counted(image.tokens, "token"));
  if (image.note) parts.push(image.note);
  return parts.map(unbroken).join(" · ");
}

export const tokensOf = (images) => images.reduce((sum, image) => sum + (image.tokens ?? 0), 0);

export const costOf = (images, context) => {
  const tokens = tokensOf(images);
  if (!tokens) return "";
  const of = context ? ` of ${number(context)}` : "";
  return `${counted(images.length, "image")}, ${number(tokens)}${of} tokens`;
};
