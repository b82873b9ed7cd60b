// dlf in a web page: opens a bundle, decodes and encodes .dlf files in a Worker. docs/web.md says how to use it.

import { Core } from "./core.js";
import { BackendMissingError, ImageError, InvalidArgumentError, errorOf } from "./errors.js";

export * from "./errors.js";

let compiled = null;

function wasm() {
  const url = new URL("./core.wasm", import.meta.url);
  const missing = (fact) => new BackendMissingError(`${url} could not be loaded (${fact}); copy the folder of dlf.js again`);
  compiled ??= fetch(url)
    .then((response) => (response.ok ? response.arrayBuffer() : Promise.reject(new Error(`HTTP ${response.status}`))))
    .then((bytes) => WebAssembly.compile(bytes))
    .catch((error) => {
      compiled = null;
      throw missing(error.message);
    });
  return compiled;
}

function asBytes(bytes) {
  if (bytes instanceof ArrayBuffer) return new Uint8Array(bytes);
  if (bytes instanceof Uint8Array) return bytes;
  throw new InvalidArgumentError("a .dlf file is given as an ArrayBuffer or a Uint8Array");
}

/** The header of a .dlf file; needs no model. With `preview` the file may be cut off behind its tokens. */
export async function info(bytes, { preview = false, limits = {} } = {}) {
  return new Core(await wasm()).info(asBytes(bytes), preview, limits);
}

export class Dlf {
  #worker;
  #waiting = new Map();
  #progress;
  #next = 0;

  /** Use `Dlf.open`. */
  constructor(progress) {
    this.#progress = progress;
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  }

  static async open(bundleURL, { progress = () => {}, device = "cpu", threads, limits = {} } = {}) {
    if (device !== "cpu" && device !== "gpu") throw new InvalidArgumentError(`there is no device ${device}; choose "cpu" or "gpu"`);
    const codec = new Dlf(progress);
    try {
      await codec.#started();
      const url = new URL(bundleURL, document.baseURI).href;
      codec.model = await codec.#call("open", [url, await wasm(), { device, threads, limits }]);
      return codec;
    } catch (error) {
      codec.close();
      throw error;
    }
  }

  async decode(bytes, { preview = false } = {}) {
    const { data, width, height } = await this.#call("decode", [asBytes(bytes), { preview }]);
    return new ImageData(data, width, height);
  }

  async encode(image) {
    if (!(image instanceof ImageData)) throw new ImageError("an image is given as ImageData");
    return this.#call("encode", [{ data: image.data, width: image.width, height: image.height }]);
  }

  info(bytes, options) {
    return info(bytes, options);
  }

  /** Ends the Worker; calls that wait are refused. */
  close() {
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(errorOf(41, "the codec was closed"));
    this.#waiting.clear();
  }

  #started() {
    return new Promise((resolve, reject) => {
      this.#worker.onerror = (event) => {
        const error = new BackendMissingError(`the Worker of dlf.js could not run (${event.message ?? "a file of its folder is missing"})`);
        reject(error);
        this.#waiting.forEach((call) => call.reject(error));
        this.#waiting.clear();
      };
      this.#worker.onmessage = ({ data }) => {
        if (data.ready) return resolve();
        if (data.progress) return this.#progress(data.progress);
        const call = this.#waiting.get(data.id);
        this.#waiting.delete(data.id);
        return data.code === undefined ? call?.resolve(data.result) : call?.reject(errorOf(data.code, data.message));
      };
    });
  }

  #call(method, args) {
    return new Promise((resolve, reject) => {
      const id = this.#next++;
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, method, args });
    });
  }
}
