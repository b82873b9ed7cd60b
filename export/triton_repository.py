"""Write a model repository that Triton Inference Server loads: encode, decode and info in its Python back end.

The stages run where `dlf.Codec` runs them, chained with the entropy coder in one process: coding needs its results between the
stages, so that they are no models of their own. `dlf.runtime.serve.triton` is what the back end calls.
"""

import shutil
from pathlib import Path
from string import Template

from dlf.export.output_folder import writing
from dlf.runtime.bundles.bundle import Bundle

BATCH, QUEUE, DELAY = 8, 64, 2000  # images of a batch at most, requests that may wait, microseconds that a batch may wait to fill

CONFIG = Template("""\
name: "dlf_$operation"
backend: "python"
max_batch_size: $batch
# A file each: the bytes of one request, of any number.
input [ { name: "body" data_type: TYPE_UINT8 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "answer" data_type: TYPE_UINT8 dims: [ -1 ] } ]
dynamic_batching {
  max_queue_delay_microseconds: $delay
  default_queue_policy { max_queue_size: $queue }
}
# The codec takes a GPU by itself where its backend has one. Each instance is a process with a codec of its own.
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "operation" value { string_value: "$operation" } }
# From the folder of this file.
parameters { key: "bundle" value { string_value: "../../bundle" } }
# As of dlf.Codec; nothing: the fastest here.
parameters { key: "backend" value { string_value: "" } }
# Of an instance; 0: as many as there are.
parameters { key: "threads" value { string_value: "$threads" } }
""")

MODEL = '"""See dlf.runtime.serve.triton."""\n\nfrom dlf.runtime.serve.triton import TritonPythonModel  # noqa: F401\n'


def write(source: Path, output: Path, threads: int | None = None) -> None:
    """Write `output/bundle`, a copy of the bundle `source`, and `output/models`, the repository; whole or not at all.

    Raises:
        BundleForeignError, BundleBrokenError: `source` cannot be used.
        ExportError: `output` cannot be written.
    """
    files = [source / "manifest.json", *(source / name for name in Bundle(source).manifest["files"])]
    with writing(output, sum(file.stat().st_size for file in files)) as folder:
        (folder / "bundle").mkdir()
        for file in files:
            shutil.copyfile(file, folder / "bundle" / file.name)
        for operation in ("encode", "decode", "info"):
            model = folder / "models" / f"dlf_{operation}"
            (model / "1").mkdir(parents=True)
            (model / "1" / "model.py").write_text(MODEL)
            values = {"operation": operation, "batch": BATCH, "queue": QUEUE, "delay": DELAY, "threads": threads or 0}
            (model / "config.pbtxt").write_text(CONFIG.substitute(values))
