// The page of dlf serve: encodes a dropped image, decodes the file again, and shows both pictures and the bytes.

const $ = (selector) => document.querySelector(selector);

async function post(path, body) {
  const response = await fetch(path, { method: "POST", body });
  if (response.ok) return response;
  const { error, message } = await response.json();
  throw Object.assign(new Error(message), { name: error });
}

function show(image, blob, caption) {
  if (image.src) URL.revokeObjectURL(image.src);
  if (blob) image.src = URL.createObjectURL(blob);
  else image.removeAttribute("src");
  image.nextElementSibling.textContent = caption;
}

async function isDlf(file) {
  return new Uint8Array(await file.slice(0, 1).arrayBuffer())[0] === 0xdf;
}

async function open(file) {
  $("#status").className = "";
  $("#status").textContent = "…";
  try {
    const coded = await isDlf(file);
    const start = performance.now();
    const data = coded ? file : await (await post("encode", file)).blob();
    const between = performance.now();
    const picture = await (await post("decode", data)).blob();
    const end = performance.now();
    const { width, height, bpp } = await (await post("info", data)).json();
    show($("#before"), coded ? null : file, `${file.size} bytes`);
    show($("#after"), picture, `${data.size} bytes, ${bpp.toFixed(4)} bits per pixel`);
    if ($("#save").href) URL.revokeObjectURL($("#save").href);
    $("#save").href = URL.createObjectURL(data);
    $("#save").download = file.name.replace(/(\.[^.]*)?$/, ".dlf");
    $("#save").hidden = $("main").hidden = false;
    const seconds = (from, to) => `${((to - from) / 1000).toFixed(2)} s`;
    const encoded = coded ? "" : `encoded in ${seconds(start, between)}, `;
    $("#status").textContent = `${width}x${height}: ${encoded}decoded in ${seconds(between, end)}`;
  } catch (error) {
    $("#status").className = "error";
    $("#status").textContent = `${error.name}: ${error.message}`;
  }
}

const drop = $("#drop");
$("#file").addEventListener("change", ({ target }) => target.files.length && open(target.files[0]));
addEventListener("dragover", (event) => event.preventDefault());
drop.addEventListener("dragenter", () => drop.classList.add("over"));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});

const about = await (await fetch("info")).json();
$("footer").textContent = `Model ${about.model} (${about.fingerprint}, ${about.precision}), licence: ${about.licence ?? "unknown"}; ${about.backend} on ${about.device}.`;
