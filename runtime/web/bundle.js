// A bundle on a web server: its files, each checked against the manifest, and kept by the browser under their hashes.

import { BackendMissingError, BundleBrokenError, BundleForeignError } from "./errors.js";

const CACHE = "dlf-files"; // holds files of any bundle; the hash is in the address, so that no entry ever goes stale

export class Bundle {
  #url;
  #progress;

  /** `progress({ file, loaded, bytes })` is called while files load. Use `Bundle.open`. */
  constructor(url, manifest, progress) {
    this.#url = url;
    this.#progress = progress;
    this.manifest = manifest;
  }

  /** Throws BundleForeignError unless there is a manifest of a bundle. */
  static async open(url, progress = () => {}) {
    if (!globalThis.crypto?.subtle)
      throw new BackendMissingError("browsers check hashes only on pages from https or localhost; serve this page so");
    const base = url.endsWith("/") ? url : `${url}/`;
    const foreign = (fact) => new BundleForeignError(`${base}manifest.json ${fact}; name the folder of a bundle`);
    const response = await fetch(`${base}manifest.json`).catch((error) => { throw foreign(`could not be loaded (${error.message})`); });
    if (!response.ok) throw foreign(`could not be loaded (HTTP ${response.status})`);
    const manifest = await response.json().catch(() => { throw foreign("is not JSON"); });
    if (manifest?.format !== "dlf-bundle" || manifest.format_version !== 1) throw foreign("is not of a bundle of version 1");
    return new Bundle(base, manifest, progress);
  }

  /** The files of a stage: its graph and, if it has one, its weights. */
  stageFiles(stage) {
    const file = this.manifest.stages?.[stage]?.file;
    if (typeof file !== "string") throw new BundleBrokenError(`${this.#url} has no stage ${stage}; export it again`);
    return { graph: file, weights: Object.hasOwn(this.manifest.files ?? {}, `${file}.data`) ? `${file}.data` : null };
  }

  /** A file's bytes. Throws BundleBrokenError unless they have the size and the SHA-256 that the manifest says. */
  async read(name) {
    const broken = (fact) => new BundleBrokenError(`${this.#url}${name} ${fact}; copy the bundle again`);
    const expected = Object.hasOwn(this.manifest.files ?? {}, name) ? this.manifest.files[name] : null;
    if (expected === null || /^\.\.?$|[/\\]/.test(name) || !/^[0-9a-f]{64}$/.test(expected.sha256))
      throw broken("is not a file that the manifest names");
    const cache = await globalThis.caches?.open(CACHE).catch(() => null); // some private windows have none
    const key = new URL(`/dlf-sha256/${expected.sha256}`, globalThis.location.href).href;
    const kept = await cache?.match(key);
    if (kept) {
      const bytes = await kept.arrayBuffer();
      if ((await sha256(bytes)) === expected.sha256) return new Uint8Array(bytes);
      await cache.delete(key);
    }
    const response = await fetch(this.#url + encodeURIComponent(name))
      .catch((error) => { throw broken(`could not be loaded (${error.message})`); });
    if (!response.ok) throw broken(`could not be loaded (HTTP ${response.status})`);
    const bytes = new Uint8Array(expected.bytes);
    let loaded = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      if (loaded + value.length > bytes.length) {
        await reader.cancel();
        throw broken(`is longer than the ${bytes.length} bytes that the manifest says`);
      }
      bytes.set(value, loaded);
      loaded += value.length;
      this.#progress({ file: name, loaded, bytes: bytes.length });
    }
    if (loaded !== bytes.length) throw broken(`has ${loaded} bytes, not the ${bytes.length} that the manifest says`);
    if ((await sha256(bytes)) !== expected.sha256) throw broken("has another SHA-256 than the manifest says");
    await cache?.put(key, new Response(bytes)).catch(() => {}); // the disk may be full
    return bytes;
  }
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
