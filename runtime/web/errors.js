// The errors: one class for each kind of refusal, with the names of runtime/errors.py and the codes of dlf.h.

/** Base of all errors of dlf. `code` is the error's number in dlf.h. */
export class DLFError extends Error {
  static code = 0;
  get code() {
    return this.constructor.code;
  }
  get name() {
    return this.constructor.errorName;
  }
}

const BY_CODE = new Map();

function kind(name, code, fact) {
  const cls = class extends DLFError {
    static code = code;
    static errorName = name;
    static fact = fact;
  };
  BY_CODE.set(code, cls);
  return cls;
}

export const InvalidArgumentError = kind("InvalidArgumentError", 1, "an argument is out of its range");
export const OutOfMemoryError = kind("OutOfMemoryError", 2, "the image takes more memory than the page has; use a smaller one");
export const NotDLFError = kind("NotDLFError", 10, "it is not a .dlf file, or its header is damaged");
export const UnsupportedVersionError = kind(
  "UnsupportedVersionError", 11, "it is of a .dlf version that this dlf does not read; it needs another version of dlf");
export const TruncatedError = kind("TruncatedError", 12, "it ends too early; download it again");
export const TrailingBytesError = kind("TrailingBytesError", 13, "bytes are left after its last symbol; download it again");
export const ChecksumError = kind("ChecksumError", 14, "its checksum does not match its bytes; download it again");
export const SizeLimitError = kind("SizeLimitError", 15, "the image is larger than the limits allow");
export const TokensMissingError = kind("TokensMissingError", 16, "it is too short to hold its tokens; download it again");
export const WrongModelError = kind("WrongModelError", 17, "another model wrote it; decode it with the bundle that wrote it");
export const StreamCorruptError = kind("StreamCorruptError", 18, "its coded data are damaged; download it again");
export const BundleBrokenError = kind("BundleBrokenError", 30, "a file of the bundle is missing or damaged; copy the bundle again");
export const BundleForeignError = kind("BundleForeignError", 31, "it is not a bundle, or one of an unknown format version");
export const BackendMissingError = kind("BackendMissingError", 40, "onnxruntime-web's files are not there");
export const BackendFailedError = kind("BackendFailedError", 41, "onnxruntime-web could not load or run a stage");
export const ImageError = kind("ImageError", 42, "the image cannot be read");

/** The error of a code; without a message it says what the code does. */
export function errorOf(code, message = "") {
  const cls = BY_CODE.get(code) ?? DLFError;
  return new cls(message || cls.fact);
}
