// The demonstration page: a photograph to a .dlf file and back, or a .dlf file to a picture.

import { Dlf } from "./dlf/dlf.js";

const at = (id) => document.getElementById(id);
const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(2)} s`;
let opening = null;

function say(text, isError = false) {
  at("status").textContent = text;
  at("status").classList.toggle("error", isError);
}

const codec = () =>
  (opening ??= Dlf.open("model/", { progress: ({ file, loaded, bytes }) => say(`Loading ${file}: ${Math.round((100 * loaded) / bytes)} %`) })
    .catch((error) => {
      opening = null;
      throw error;
    }));

function draw(id, image, caption) {
  const canvas = at(id);
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.parentElement.hidden = false;
  canvas.nextElementSibling.textContent = caption;
}

async function pixels(file) {
  const bitmap = await createImageBitmap(file).catch(() => { throw new Error("the browser cannot read it as an image"); });
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

async function show(file) {
  try {
    say("Loading the model ...");
    document.querySelectorAll("figure").forEach((figure) => (figure.hidden = true));
    at("save").hidden = true;
    const dlf = await codec();
    let bytes, encoded = "";
    if (file.name.endsWith(".dlf")) {
      bytes = new Uint8Array(await file.arrayBuffer());
    } else {
      const image = await pixels(file);
      draw("original", image, `${file.name}: ${image.width} x ${image.height}, ${file.size} bytes`);
      const start = performance.now();
      bytes = await dlf.encode(image);
      encoded = `encoded in ${seconds(start)}, `;
      URL.revokeObjectURL(at("save").href);
      at("save").href = URL.createObjectURL(new Blob([bytes]));
      at("save").download = `${file.name.replace(/\.[^.]*$/, "")}.dlf`;
      at("save").hidden = false;
    }
    const start = performance.now();
    const image = await dlf.decode(bytes);
    draw("decoded", image, `${bytes.length} bytes (${((8 * bytes.length) / image.width / image.height).toFixed(4)} bits a pixel), ` +
                           `${encoded}decoded in ${seconds(start)}, ${dlf.model.threads} threads`);
    say("Done.");
  } catch (error) {
    say(`${file.name}: ${error.message}.`, true);
  }
}

const drop = at("drop");
at("choose").onchange = ({ target }) => {
  if (target.files[0]) show(target.files[0]);
  target.value = "";
};
document.ondragover = (event) => {
  event.preventDefault();
  drop.classList.add("over");
};
document.ondragleave = () => drop.classList.remove("over");
document.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files[0]) show(event.dataTransfer.files[0]);
};
