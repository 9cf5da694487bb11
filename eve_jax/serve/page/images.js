// Images of files: read, measured, made smaller only when they are too large to send, and their blank copies.

import { newId } from "./state.js";

const AS_THEY_ARE = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]);
const MOST_BYTES = 8 * 2 ** 20;
const MOST_PIXELS = 24e6;
const SMALLER_PIXELS = 8e6; // of an image that exceeds one of the two
const GRAY = "rgb(128 128 128)"; // of the blank-image baseline of launch.eval

const urls = new Map(); // data URI by id of an image

export const urlOf = (image) => urls.get(image.id) ?? "";

export const keepUrl = (id, url) => urls.set(id, url);

// {id, name, width, height, note} of a file; `mostPixels` is the server's limit. Raises Error with a sentence for the user.
export async function readImage(file, mostPixels = Infinity) {
  const name = file.name || "image";
  const source = URL.createObjectURL(file);
  try {
    const element = await decoded(source, name);
    const { naturalWidth: width, naturalHeight: height } = element;
    if (!width || !height) throw new Error(`${name} has no size in pixels.`);
    const image = { id: newId(), name, width, height, note: "" };
    if (file.size <= MOST_BYTES && width * height <= Math.min(MOST_PIXELS, mostPixels) && AS_THEY_ARE.has(file.type)) {
      keepUrl(image.id, await dataUrl(file, name));
    } else {
      redraw(image, element, file.type, Math.min(SMALLER_PIXELS, mostPixels));
    }
    return image;
  } finally {
    URL.revokeObjectURL(source);
  }
}

async function decoded(source, name) {
  const element = new Image();
  element.src = source;
  try {
    await element.decode();
  } catch {
    throw new Error(`${name} is not an image that this browser can read. Use PNG, JPEG, WebP, GIF or BMP.`);
  }
  return element;
}

function dataUrl(file, name) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${name} cannot be read. Was it moved or deleted?`));
    reader.readAsDataURL(file);
  });
}

function redraw(image, element, type, most) {
  const scale = Math.min(1, Math.sqrt(most / (image.width * image.height)));
  image.width = Math.max(1, Math.floor(image.width * scale));
  image.height = Math.max(1, Math.floor(image.height * scale));
  const canvas = canvasOf(image);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(element, 0, 0, image.width, image.height);
  const photo = type === "image/jpeg" || scale < 1;
  keepUrl(image.id, photo ? canvas.toDataURL("image/jpeg", 0.95) : canvas.toDataURL("image/png"));
  image.note = scale < 1 ? `reduced to ${image.width}×${image.height} before sending` : "converted before sending";
}

function canvasOf({ width, height }) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

const blanks = new Map(); // data URI by size

// The data URI of a gray image of the same size.
export function blankUrlOf(image) {
  const name = `${image.width}×${image.height}`;
  if (!blanks.has(name)) {
    const canvas = canvasOf(image);
    const context = canvas.getContext("2d");
    context.fillStyle = GRAY;
    context.fillRect(0, 0, image.width, image.height);
    blanks.set(name, canvas.toDataURL("image/png"));
  }
  return blanks.get(name);
}

// The image files of a paste or a drop.
export function filesOf(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.filter((file) => file.type.startsWith("image/") || !file.type);
}
