// A request as a command of curl and as Python. Images are read from files of their names, so that the code stays short.

// Stands for the data of image `n` in a body; the character is not one that is typed.
const mark = (n) => `\uE000image ${n}\uE000`;
const MARK = /\uE000image (\d+)\uE000/g;
const ONE_MARK = /^\uE000image (\d+)\uE000$/;

// `make(urlOf)` makes the body. Returns it with marks instead of images, and the names of their files.
export function withFiles(make) {
  const names = [];
  return { body: make((image) => mark(names.push(image.name) - 1)), names };
}

const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function asCurl({ body, names }, url, keyed) {
  const json = JSON.stringify(body, null, 2).replace(/[\\$`]/g, "\\$&"); // for a here-document that expands
  const filled = json.replace(MARK, (_, n) => `data:image/png;base64,$(base64 < ${shellQuoted(names[n])} | tr -d '\\n')`);
  const key = keyed ? ` \\\n  -H "Authorization: Bearer $EVE_API_KEY"` : "";
  return `curl ${shellQuoted(url)} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d @- <<JSON_END\n${filled}\nJSON_END\n`;
}

const isFlat = (value) => typeof value !== "object" || value === null || Object.values(value).every((one) => typeof one !== "object");

// The source of a value: JSON is Python but for null, true and false.
function source(value, names, indent) {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string" && ONE_MARK.test(value)) return `data_uri(${JSON.stringify(names[ONE_MARK.exec(value)[1]])})`;
  if (typeof value !== "object") return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const items = Object.entries(value).map(([name, one]) => (open === "[" ? "" : `${JSON.stringify(name)}: `) + source(one, names, inner));
  return isFlat(value) ? `${open}${items.join(", ")}${close}` : `${open}\n${items.map((one) => `${inner}${one},\n`).join("")}${indent}${close}`;
}

const READS_FILES = `

def data_uri(file: str) -> str:
    return "data:image/png;base64," + base64.b64encode(Path(file).read_bytes()).decode()

`;

export function asPython({ body, names }, base, keyed) {
  const { max_size: size, ...own } = body; // what the client knows, and what it does not
  const extra = size === undefined ? "" : `    extra_body={"max_size": ${size}},\n`;
  const args = Object.entries(own).map(([name, value]) => `    ${name}=${source(value, names, "    ")},\n`).join("");
  const imports = [names.length && "import base64", keyed && "import os", names.length && "from pathlib import Path"].filter(Boolean);
  const key = keyed ? `os.environ["EVE_API_KEY"]` : `"none"`;
  return (
    `${imports.map((line) => `${line}\n`).join("")}${imports.length ? "\n" : ""}from openai import OpenAI\n${names.length ? READS_FILES : ""}\n` +
    `client = OpenAI(base_url=${JSON.stringify(base)}, api_key=${key})\n` +
    `answer = client.chat.completions.create(\n${args}${extra})\nprint(answer.choices[0].message.content)\n`
  );
}
