"""Stages in ONNX Runtime, on the CPU."""

from dlf.runtime.backends import Arrays, HasStages, Stage, require_float32, telemetry

with telemetry.off():
    import onnxruntime


class ONNXRuntimeBackend:
    """ONNX Runtime's CPU provider in float32; see `dlf.runtime.backends.Backend`."""

    name = "onnxruntime"
    device = "CPU"
    precision = "fp32"
    on_cpu = True

    def __init__(self, threads: int | None) -> None:
        self.threads = threads
        self.versions = {"onnxruntime": onnxruntime.__version__}
        self._options = onnxruntime.SessionOptions()
        self._options.log_severity_level = 3  # errors
        # With it, the second run of a size lays out all maps in one new block, beside those that the first has taken and keeps.
        self._options.enable_mem_pattern = False
        if threads is not None:
            self._options.intra_op_num_threads = threads

    def load(self, bundle: HasStages, stage: str) -> Stage:
        """See `dlf.runtime.backends.Backend`."""
        file = bundle.stage(stage)
        session = onnxruntime.InferenceSession(file, self._options, providers=["CPUExecutionProvider"])
        ports = (*session.get_inputs(), *session.get_outputs())
        require_float32(file, {port.name: port.type for port in ports}, "tensor(float)")
        names = [output.name for output in session.get_outputs()]

        def run(inputs: Arrays) -> Arrays:
            return dict(zip(names, session.run(names, inputs), strict=True))

        return run


open_backend = ONNXRuntimeBackend
