// Types of dlf.js.

/** "gpu" is WebGPU, and the CPU where the browser has none or no adapter; `Model.device` says which it became. */
export type Device = "cpu" | "gpu";
export interface Limits { maxPixels?: number; maxSide?: number }
export interface FileInfo {
  version: number; width: number; height: number; fingerprint: number; tokenBits: number; hasChecksum: number;
  /** Bytes of the file's parts. */
  headerBytes: number; tokenBytes: number; detailBytes: number; checksumBytes: number;
  tiles: number;
}
export interface Model { name?: string; license?: string; precision: string; fingerprint: number; device: Device; threads: number }
export interface Progress { file: string; loaded: number; bytes: number }

/** Throws the errors that a file's header and checksum give. */
export function info(bytes: ArrayBuffer | Uint8Array, options?: { preview?: boolean; limits?: Limits }): Promise<FileInfo>;

export class Dlf {
  /** Loads the manifest and the entropy model; stages are loaded when they are first needed. `threads`: the most, by
   *  default 8; pages that are not isolated have one. Throws InvalidArgumentError, BundleForeignError, BundleBrokenError, BackendMissingError. */
  static open(bundleURL: string | URL, options?: { progress?: (step: Progress) => void; device?: Device; threads?: number; limits?: Limits }): Promise<Dlf>;
  readonly model: Model;
  /** The image, or with `preview` what the tokens alone tell, of a file that may be cut off behind them. */
  decode(bytes: ArrayBuffer | Uint8Array, options?: { preview?: boolean }): Promise<ImageData>;
  /** A .dlf file; transparency is ignored. */
  encode(image: ImageData): Promise<Uint8Array>;
  info(bytes: ArrayBuffer | Uint8Array, options?: { preview?: boolean; limits?: Limits }): Promise<FileInfo>;
  close(): void;
}

/** `code` is the error's number in dlf.h, `name` that of its class here and in Python. */
export class DLFError extends Error { readonly code: number }
export class InvalidArgumentError extends DLFError {}
export class OutOfMemoryError extends DLFError {}
export class NotDLFError extends DLFError {}
export class UnsupportedVersionError extends DLFError {}
export class TruncatedError extends DLFError {}
export class TrailingBytesError extends DLFError {}
export class ChecksumError extends DLFError {}
export class SizeLimitError extends DLFError {}
export class TokensMissingError extends DLFError {}
export class WrongModelError extends DLFError {}
export class StreamCorruptError extends DLFError {}
export class BundleBrokenError extends DLFError {}
export class BundleForeignError extends DLFError {}
export class BackendMissingError extends DLFError {}
export class BackendFailedError extends DLFError {}
export class ImageError extends DLFError {}
