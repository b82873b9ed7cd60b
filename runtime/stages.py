"""Loading a stage on a backend, with libdlf in the place of the pixel generator's upper levels where it computes them faster."""

from dlf.runtime.backends import Arrays, Backend, Stage
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.errors import BundleBrokenError
from dlf.runtime.formats import BASE


def load(backend: Backend, bundle: Bundle, stage: str) -> Stage:
    """Load a stage of a bundle on a backend.

    On a backend on the CPU, the generator is the bundle's graph of its base and libdlf's levels, if the bundle lists levels that
    libdlf has kernels for on this processor. Else it is the whole graph.

    Raises BundleBrokenError; fails with whatever the backend's library raises.
    """
    levels = bundle.levels(backend.threads) if stage == "generator" and backend.on_cpu else None
    if levels is None:
        return backend.load(bundle, stage)
    base_stage = backend.load(bundle, levels.stage)

    def run(inputs: Arrays) -> Arrays:
        outputs = base_stage(inputs)
        n, _, height, width = inputs["latent"].shape
        found = outputs[BASE].shape if BASE in outputs else "nothing"
        if found != (n, levels.channels, height, width):
            raise BundleBrokenError(
                f"Bundle {bundle.path}: stage {levels.stage} gives {found} as {BASE}, not "
                f"{(n, levels.channels, height, width)}; export the bundle again."
            )
        return {"image": levels.run(outputs[BASE])}

    return run
