"""Loading a stage on a backend, with libdlf in the place of the pixel generator's upper levels where it computes them faster."""

from dlf.runtime import progress
from dlf.runtime.backends import Arrays, Backend, CanLoadForOneRun, Shapes, Stage
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BundleBrokenError
from dlf.runtime.formats import BASE


def load(backend: Backend, bundle: Bundle, stage: str, *, once_on: Shapes | None = None) -> Stage:
    """Load a stage of a bundle on a backend. One for a single run, on inputs of the shapes `once_on`, is released when it has
    run, with the memory of its run.

    On a backend on the CPU, the generator is the bundle's graph of its base and libdlf's levels, if the bundle lists levels that
    libdlf has kernels for on this processor. Else it is the whole graph.

    Raises BundleBrokenError; fails with whatever the backend's library raises.
    """
    with progress.step(f"loading {progress.numbered(stage)}"):
        levels = bundle.levels(backend.threads) if stage == "generator" and backend.on_cpu else None
        name = stage if levels is None else levels.stage
        if once_on is None or not backend.on_cpu:
            loaded = backend.load(bundle, name)
        elif isinstance(backend, CanLoadForOneRun):
            loaded = _Once(backend.load_for_one_run(bundle, name, once_on))
        else:
            loaded = _Once(backend.load(bundle, name))
    if levels is None:
        return loaded

    def run(inputs: Arrays) -> Arrays:
        outputs = loaded(inputs)
        n, _, height, width = inputs["latent"].shape
        found = outputs[BASE].shape if BASE in outputs else "nothing"
        if found != (n, levels.channels, height, width):
            raise BundleBrokenError(
                f"Bundle {bundle.path}: stage {levels.stage} gives {found} as {BASE}, not "
                f"{(n, levels.channels, height, width)}; export the bundle again."
            )
        return {"image": levels.run(outputs[BASE])}

    return run


class _Once:
    """A stage for one run, with copies of its outputs: the library's own would keep all the memory of the run."""

    def __init__(self, stage: Stage) -> None:
        self._stages = [stage]

    def __call__(self, inputs: Arrays) -> Arrays:
        outputs = self._stages.pop()(inputs)
        return {name: outputs.pop(name).copy() for name in list(outputs)}
