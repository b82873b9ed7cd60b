// The entropy core: core.wasm, with JavaScript's arrays in and out. It knows nothing of stages, of files or of the network.

import { errorOf } from "./errors.js";

/** The limits of an image: dlf.h's, or lower ones. Higher ones would overflow sizes of 32 bits. */
export const allowed = ({ maxPixels = 2 ** 26, maxSide = 16384 } = {}) => ({
  maxPixels: Math.min(maxPixels, 2 ** 26),
  maxSide: Math.min(maxSide, 16384),
});

const TOKENS = 32; // of a tile
const FACTS = ["version", "width", "height", "fingerprint", "tokenBits", "hasChecksum",
               "headerBytes", "tokenBytes", "detailBytes", "checksumBytes", "tiles", "codedTokens"];

export const tiles = (side) => Math.ceil(side / 256);

export class Core {
  #module;
  #model; // the bytes of entropy.bin, or null
  #wasm; // exports of the instance; null after a refusal, which leaves an instance unfinished
  #core; // the model in it

  /** `module`: a compiled core.wasm; `model`: the bytes of an entropy.bin, without which only `info` can be used. */
  constructor(module, model = null) {
    this.#module = module;
    this.#model = model;
    this.#start();
  }

  #start() {
    const refuse = (code, at, size) => {
      throw errorOf(code, new TextDecoder().decode(new Uint8Array(this.#wasm.memory.buffer, at, size)));
    };
    const system = new Proxy({}, { get: (_, name) => () => { throw new Error(`core.wasm called ${name}`); } });
    this.#wasm = new WebAssembly.Instance(this.#module, { dlf: { refuse }, wasi_snapshot_preview1: system }).exports;
    this.#wasm._initialize();
    if (this.#model === null) return;
    this.#core = this.#wasm.open_model(this.#put(this.#model), this.#model.byteLength);
    this.channels = this.#wasm.channels(this.#core);
    this.codebookDim = this.#wasm.codebook_dim(this.#core);
    this.tokenBits = this.#wasm.token_bits(this.#core);
    this.codedTokens = this.#wasm.coded_tokens(this.#core);
  }

  /** Returns what `work` returns; `work(allocate)` may allocate bytes, which are released after it. */
  #call(work) {
    if (this.#wasm === null) this.#start();
    const taken = [];
    try {
      const result = work((size) => {
        taken.push(this.#allocate(size));
        return taken.at(-1);
      });
      taken.forEach((at) => this.#wasm.release(at));
      return result;
    } catch (error) {
      this.#wasm = null;
      if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) throw errorOf(2); // a trap: no memory
      throw error;
    }
  }

  #allocate(size) {
    const at = this.#wasm.allocate(size || 1) >>> 0;
    if (at === 0) throw errorOf(2);
    return at;
  }

  #put(array, at = this.#allocate(array.byteLength)) {
    new Uint8Array(this.#wasm.memory.buffer, at, array.byteLength)
      .set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    return at;
  }

  #take(Type, at, count) {
    return new Type(this.#wasm.memory.buffer, at >>> 0, count).slice();
  }

  /** The header of a file (Uint8Array), checked as far as it can be without a model. */
  info(bytes, preview = false, limits = {}) {
    const { maxPixels, maxSide } = allowed(limits);
    return this.#call((allocate) => {
      const at = this.#wasm.parse(this.#put(bytes, allocate(bytes.byteLength)), bytes.byteLength, preview ? 1 : 0,
                                  maxPixels, maxSide);
      return Object.fromEntries([...this.#take(Uint32Array, at, FACTS.length)].map((value, i) => [FACTS[i], value]));
    });
  }

  /** Of a file and its `info`: tokens (Uint16Array), z_hat, y_hat (Float32Array), and the symbols unless it is a preview. */
  decode(bytes, info, preview = false) {
    const [height, width] = [8 * tiles(info.height), 8 * tiles(info.width)];
    return this.#call((allocate) => {
      const file = this.#put(bytes, allocate(bytes.byteLength));
      const zSize = info.tiles * this.codebookDim * TOKENS;
      const z = allocate(4 * zSize);
      const tokens = this.#wasm.embed(this.#core, file, bytes.byteLength, preview ? 1 : 0, z);
      const found = { tokens: this.#take(Uint16Array, tokens, info.tiles * TOKENS), z_hat: this.#take(Float32Array, z, zSize) };
      const ySize = this.channels * height * width;
      if (preview) return { ...found, y_hat: new Float32Array(ySize) };
      const y = allocate(4 * ySize);
      const symbols = this.#wasm.decode(this.#core, height, width, y);
      return { ...found, y_hat: this.#take(Float32Array, y, ySize), symbols: this.#take(Int32Array, symbols, ySize) };
    });
  }

  /** The tokens nearest to z (tiles, codebookDim, 32). */
  lookup(z) {
    return this.#call((allocate) => {
      const count = z.length / this.codebookDim;
      const at = this.#wasm.lookup(this.#core, this.#put(z, allocate(z.byteLength)), count / TOKENS);
      return this.#take(Uint16Array, at, count);
    });
  }

  /** The file of an image, of its tokens and y (channels, 8h, 8w). */
  encode(tokens, y, width, height, fingerprint) {
    return this.#call((allocate) => {
      const size = this.#wasm.encode(this.#core, this.#put(y, allocate(y.byteLength)), 8 * tiles(height), 8 * tiles(width),
                                     this.#put(tokens, allocate(tokens.byteLength)), width, height, fingerprint);
      return this.#take(Uint8Array, this.#wasm.file(this.#core), size);
    });
  }

  /** RGBA rows (ImageData's) to a batch of one, (1, 3, 256h, 256w), -1..1. */
  pad(rgba, width, height) {
    return this.#call((allocate) => {
      const at = this.#wasm.pad(this.#put(rgba, allocate(rgba.byteLength)), height, width);
      return this.#take(Float32Array, at, 3 * 65536 * tiles(height) * tiles(width));
    });
  }

  /** The inverse of `pad`. */
  crop(image, width, height) {
    return this.#call((allocate) => {
      const rgba = allocate(4 * width * height);
      this.#wasm.crop(this.#put(image, allocate(image.byteLength)), height, width, rgba);
      return this.#take(Uint8ClampedArray, rgba, 4 * width * height);
    });
  }
}
