// <dlf-img src="photo.dlf" bundle="model/" alt="...">: a .dlf file as a picture.
//
// While the file still arrives, the preview is shown, which its first bytes tell. Events: `preview`, `load` and `error` (`detail` is
// the error). Elements that name one bundle share its codec.

import { Dlf, info, errorOf } from "./dlf.js";

const codecs = new Map();

function codecOf(url) {
  if (!codecs.has(url)) {
    const opening = Dlf.open(url);
    opening.catch(() => codecs.delete(url));
    codecs.set(url, opening);
  }
  return codecs.get(url);
}

export class DlfImage extends HTMLElement {
  static observedAttributes = ["src", "bundle", "alt"];
  #canvas = document.createElement("canvas");
  #shows = 0; // a number for each source, so that an old one is never drawn over a new one

  constructor() {
    super();
    this.#canvas.setAttribute("role", "img");
    const style = document.createElement("style");
    style.textContent = ":host { display: inline-block; max-width: 100% } canvas { display: block; max-width: 100%; height: auto }";
    this.attachShadow({ mode: "open" }).append(style, this.#canvas);
  }

  attributeChangedCallback(name) {
    this.#canvas.setAttribute("aria-label", this.getAttribute("alt") ?? "");
    if (name !== "alt" && this.isConnected) this.#show();
  }

  connectedCallback() {
    this.#show();
  }

  async #show() {
    const number = ++this.#shows;
    const [src, bundle] = [this.getAttribute("src"), this.getAttribute("bundle")];
    if (!src || !bundle) return;
    const draw = (image, event) => {
      if (number !== this.#shows) return;
      [this.#canvas.width, this.#canvas.height] = [image.width, image.height];
      this.#canvas.getContext("2d").putImageData(image, 0, 0);
      this.dispatchEvent(new Event(event));
    };
    try {
      const codec = await codecOf(new URL(bundle, document.baseURI).href);
      const response = await fetch(new URL(src, document.baseURI));
      if (!response.ok) throw errorOf(42, `${src} could not be loaded (HTTP ${response.status})`);
      let bytes = new Uint8Array(0), previewed = false;
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        bytes = new Uint8Array([...bytes, ...value]);
        const early = bytes;
        if (previewed || !(await info(early, { preview: true }).then(() => true, () => false))) continue;
        previewed = true;
        const whole = await info(early).then(() => true, () => false);
        if (!whole) codec.decode(early, { preview: true }).then((image) => draw(image, "preview"),
                                                                        (error) => { previewed = error.name !== "TruncatedError"; });
      }
      draw(await codec.decode(bytes), "load");
    } catch (error) {
      if (number === this.#shows) this.dispatchEvent(new CustomEvent("error", { detail: error }));
    }
  }
}

customElements.define("dlf-img", DlfImage);
