// The codec, in a Worker: a bundle's stages in onnxruntime-web, and the entropy core between them. dlf.js talks to it.

import { Bundle } from "./bundle.js";
import { Core, allowed, tiles } from "./core.js";
import { BackendFailedError, BackendMissingError, DLFError, SizeLimitError, WrongModelError } from "./errors.js";

const DECODER = ["synthesis", "adaptor", "generator"];

/** onnxruntime-web, and where it runs: on the GPU if that is asked for and the browser has WebGPU with an adapter. */
async function load(device) {
  const gpu = device === "gpu" && Boolean(await navigator.gpu?.requestAdapter().catch(() => null));
  const file = gpu ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs";
  const ort = await import(file).catch((error) => {
    throw new BackendMissingError(`${file} could not be loaded (${error.message}); copy the folder of dlf.js again`);
  });
  return [ort, gpu ? "gpu" : "cpu"];
}

class Codec {
  #ort;
  #providers;
  #bundle;
  #core;
  #fingerprint;
  #limits;
  #sessions = new Map();

  async open(url, wasm, { device: wanted, threads: most = 8, limits }, progress) {
    const [ort, device] = await load(wanted);
    const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, most) : 1; // others share no memory
    Object.assign(ort.env.wasm, { wasmPaths: new URL("./ort/", import.meta.url).href, numThreads: threads });
    ort.env.logLevel = "error";
    this.#ort = ort;
    this.#providers = device === "gpu" ? ["webgpu", "wasm"] : ["wasm"];
    this.#limits = allowed(limits);
    this.#bundle = await Bundle.open(url, progress);
    const { manifest } = this.#bundle;
    this.#core = new Core(wasm, await this.#bundle.read("entropy.bin"));
    this.#fingerprint = parseInt(manifest.files["entropy.bin"].sha256.slice(0, 4), 16);
    return { name: manifest.model?.name, license: manifest.model?.license, precision: manifest.precision,
             fingerprint: this.#fingerprint, device, threads };
  }

  async decode(bytes, { preview = false } = {}) {
    const info = this.#core.info(bytes, preview, this.#limits);
    const { tokenBits, codedTokens } = this.#core;
    if (info.fingerprint !== this.#fingerprint || info.tokenBits !== tokenBits || info.codedTokens !== codedTokens) {
      const hex = (number) => number.toString(16).padStart(4, "0");
      throw new WrongModelError(`it was written with model ${hex(info.fingerprint)}, and the bundle holds model ` +
                                `${hex(this.#fingerprint)}; decode it with the bundle that wrote it`);
    }
    const [h, w] = [tiles(info.height), tiles(info.width)];
    const { z_hat, y_hat } = this.#core.decode(bytes, info, preview);
    let arrays = { z_hat: new this.#ort.Tensor(z_hat, [1, h, w, this.#core.codebookDim, 32]),
                   y_hat: new this.#ort.Tensor(y_hat, [1, this.#core.channels, 8 * h, 8 * w]) };
    for (const stage of DECODER) arrays = await this.#run(stage, arrays);
    const image = checked("generator", arrays, "image", 3 * 65536 * h * w);
    return { data: this.#core.crop(image, info.width, info.height), width: info.width, height: info.height };
  }

  async encode({ data, width, height }) {
    const { maxSide, maxPixels } = this.#limits;
    if (Math.max(width, height) > maxSide || width * height > maxPixels)
      throw new SizeLimitError(`the image is ${width}x${height} pixels, over the limit of ${maxSide} a side or ${maxPixels} in all`);
    const [h, w] = [tiles(height), tiles(width)];
    const image = new this.#ort.Tensor(this.#core.pad(data, width, height), [1, 3, 256 * h, 256 * w]);
    const latents = await this.#run("analysis", { image });
    const z = checked("analysis", latents, "z", h * w * this.#core.codebookDim * 32);
    const y = checked("analysis", latents, "y", this.#core.channels * 64 * h * w);
    return this.#core.encode(this.#core.lookup(z), y, width, height, this.#fingerprint);
  }

  async #run(stage, inputs) {
    try {
      if (!this.#sessions.has(stage)) {
        const { graph, weights } = this.#bundle.stageFiles(stage);
        const externalData = weights === null ? [] : [{ path: weights, data: await this.#bundle.read(weights) }];
        const options = { externalData, executionProviders: this.#providers };
        this.#sessions.set(stage, await this.#ort.InferenceSession.create(await this.#bundle.read(graph), options));
      }
      return await this.#sessions.get(stage).run(inputs);
    } catch (error) {
      if (error instanceof DLFError) throw error;
      throw new BackendFailedError(`onnxruntime-web could not load or run stage ${stage} (${error.message ?? error})`);
    }
  }
}

function checked(stage, arrays, name, size) {
  const data = arrays[name]?.data;
  if (data?.length !== size) throw new BackendFailedError(`stage ${stage} gives no ${name} of ${size} values; export the bundle again`);
  if (!data.every(Number.isFinite)) throw new BackendFailedError(`stage ${stage} gives values in ${name} that are not finite`);
  return data;
}

const codec = new Codec();
let last = Promise.resolve(); // calls run one after the other

self.onmessage = ({ data: { id, method, args } }) => {
  const progress = (step) => self.postMessage({ progress: step });
  last = last.then(async () => {
    try {
      const result = await codec[method](...args, progress);
      const buffer = result.data?.buffer ?? result.buffer;
      self.postMessage({ id, result }, buffer ? [buffer] : []);
    } catch (error) {
      self.postMessage({ id, code: error instanceof DLFError ? error.code : 41, message: error.message });
    }
  });
};
self.postMessage({ ready: true });
