"""Any codec that has a command line, described by a small TOML file:

    name = "illm"
    encode = "python codec.py encode --quality {quality} {image} {file}"
    decode = "python codec.py decode {file} {image}"
    qualities = [1, 2, 3]       # in the order of growing files; may be left out
    suffix = ".illm"            # of the coded file; may be left out
    timeout = 600               # seconds for one command; may be left out

Images are PNG files in sRGB. A command runs in the folder of the TOML file, without a shell.
"""

import os
import shlex
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from time import perf_counter

import numpy as np
from PIL import Image

from dlf.benchmarks.rivals import Pixels
from dlf.runtime.errors import BackendFailedError, InvalidArgumentError

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "encode": str,
    "decode": str,
    "qualities": list,
    "suffix": str,
    "timeout": (int, float),
}
_NEEDED = ("name", "encode", "decode")


@dataclass(frozen=True)
class CommandRival:
    """A codec that runs as a command."""

    name: str
    folder: Path  # where its commands run
    commands: dict[str, list[str]]  # "encode" and "decode" -> words with places for values
    qualities: Sequence[float] = (0,)
    suffix: str = ".bin"
    timeout: float = 600

    @property
    def curve(self) -> Sequence[float]:
        """All of its qualities."""
        return self.qualities

    def encode(self, pixels: Pixels, quality: float) -> bytes:
        """Return the file of an image (H, W, 3).

        Raises:
            BackendFailedError: the command failed, took longer than `timeout`, or wrote no file.
        """
        with TemporaryDirectory(prefix="dlf-bench-") as folder:
            image, file = Path(folder, "image.png"), Path(folder, f"file{self.suffix}")
            Image.fromarray(pixels).save(image)
            self.run("encode", image, file, quality)
            return file.read_bytes()

    def decode(self, data: bytes) -> Pixels:
        """Return the pixels (H, W, 3) of a file; it raises what `encode` does."""
        with TemporaryDirectory(prefix="dlf-bench-") as folder:
            image, file = Path(folder, "image.png"), Path(folder, f"file{self.suffix}")
            file.write_bytes(data)
            self.run("decode", image, file)
            with Image.open(image) as picture:
                return np.asarray(picture.convert("RGB"))

    def run(self, direction: str, image: Path, file: Path, quality: float = 0) -> float:
        """Run a command, "encode" from the image to the file or "decode" back; it raises what `encode` does.

        Returns:
            Seconds from the start of the process to its end.
        """
        values = {"{image}": str(image), "{file}": str(file), "{quality}": f"{quality:g}"}
        command = [_filled(word, values) for word in self.commands[direction]]
        written = file if direction == "encode" else image
        written.unlink(missing_ok=True)
        start = perf_counter()
        with TemporaryFile() as output:
            process = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            try:
                process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                raise BackendFailedError(f"{self.name}: {shlex.join(command)} took longer than {self.timeout:g} s.") from None
            finally:  # its children too
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            seconds = perf_counter() - start
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if process.returncode or not written.exists():
            fact = f"ended with status {process.returncode}" if process.returncode else "wrote no file"
            raise BackendFailedError(
                f"{self.name}: {shlex.join(command)} {fact} ({said.rpartition(chr(10))[2] or 'no message'})."
            )
        return seconds


def load(path: Path) -> CommandRival:
    """Read a rival's TOML file.

    Raises:
        InvalidArgumentError: it cannot be read, a field is unknown, missing or of the wrong type, or a program is not there.
    """
    try:
        fields = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgumentError(f"{path} cannot be read as a rival's TOML ({error}).") from error
    for name in _NEEDED:
        if name not in fields:
            raise InvalidArgumentError(f"{path} has no {name!r}.")
    for name, value in fields.items():
        if name not in _FIELDS:
            raise InvalidArgumentError(f"{path}: {name!r} is unknown; the fields are {', '.join(_FIELDS)}.")
        if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
            raise InvalidArgumentError(f"{path}: {name} = {value!r} is of the wrong type.")
    commands = {direction: _words(path, direction, fields.pop(direction)) for direction in ("encode", "decode")}
    qualities = fields.get("qualities", [0])
    if not qualities or not all(isinstance(quality, int | float) for quality in qualities):
        raise InvalidArgumentError(f"{path}: qualities must be numbers, one at least.")
    return CommandRival(**fields, folder=path.absolute().parent, commands=commands)


def _words(path: Path, direction: str, template: str) -> list[str]:
    """Return the words of a command, the program with its whole path."""
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise InvalidArgumentError(f"{path}: {direction} is no command ({error}).") from error
    for place in ("{image}", "{file}"):
        if place not in template:
            raise InvalidArgumentError(f"{path}: {direction} has no {place}.")
    beside = str(path.absolute().parent / words[0])
    program = shutil.which(beside) or shutil.which(words[0])
    if not program:
        raise InvalidArgumentError(f"{path}: the program {words[0]} of {direction} is not installed.")
    return [program, *words[1:]]


def _filled(word: str, values: dict[str, str]) -> str:
    for place, value in values.items():
        word = word.replace(place, value)
    return word
