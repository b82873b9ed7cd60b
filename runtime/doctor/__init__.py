"""The report of `dlf doctor`: what is installed, what would be used and why, and whether it computes correctly.

A missing backend or a broken bundle raises no error here: it is a failed check of the report.
"""

import logging
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlf
from dlf.runtime import bundles
from dlf.runtime.backends import Backend, choice, proven
from dlf.runtime.backends.choice import INSTALL, missing
from dlf.runtime.bundles import builtin
from dlf.runtime.bundles.bundle import Bundle
from dlf.runtime.doctor import selftest, system
from dlf.runtime.doctor.selftest import Check
from dlf.runtime.doctor.system import GPU
from dlf.runtime.errors import BackendFailedError, BackendMissingError, DLFError
from dlf.runtime.gpu.engines import Engine, EngineCache
from dlf.runtime.steps import HasSteps

_log = logging.getLogger(__name__)


@dataclass
class Report:
    """What `examine` found.

    Attributes:
        dlf, python, system: versions.
        packages: library -> version; None if it is not installed.
        processor: the CPU's name.
        isa: the instructions that the entropy core's prior runs on; None if no bundle could be opened.
        gpus: the NVIDIA GPUs.
        model: the path asked for; and if it could be opened, the bundle's folder, name, license (None if unknown), fingerprint
            and precision, and the reason of the choice.
        backends: backend -> why it cannot be used; None if it can.
        backend: the one in use, its name, the reason of the choice, its device, precision and versions; None if there is none.
        engines: the cached TensorRT engines, each with its stage, precision, library, version, gpu, bytes and path.
        engine_folder: the folder of the cached engines.
        checks: the results of the self-test, in the order of its checks.
    """

    dlf: str
    python: str
    system: str
    packages: dict[str, str | None]
    processor: str
    isa: str | None
    gpus: list[GPU]
    model: dict[str, str | None]
    backends: dict[str, str | None]
    backend: dict[str, Any] | None
    engine_folder: str
    engines: list[dict[str, Any]]
    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def examine(
    model: str | os.PathLike[str] | None = None,
    backend: str | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> Report:
    """Examine the installation, and test a bundle on a backend; the defaults are those of `dlf.Codec`.

    A backend on a GPU that passes is remembered, and is `dlf.Codec`'s default from then on; one that fails no longer is.

    Raises:
        InvalidArgumentError: there is no backend or device of that name, or `threads` is below 1.
    """
    path = Path(builtin.path() if model is None else model)
    cache = EngineCache()
    report = Report(
        dlf=dlf.__version__,
        python=platform.python_version(),
        system=platform.platform(),
        packages=system.packages(),
        processor=system.processor(),
        isa=None,
        gpus=system.gpus(),
        model={"path": str(path)},
        backends={name: missing(name) for name in INSTALL},
        backend=None,
        engine_folder=str(cache.folder),
        engines=[_describe(engine) for engine in cache.engines()],
    )
    bundle, opened = _select(report, path, backend, threads, device)
    if bundle:
        report.isa = bundle.entropy.isa
        report.checks += selftest.run(bundle, opened)
        if isinstance(opened, HasSteps):
            _remember(bundle, opened, report.passed)
    return report


def _remember(bundle: Bundle, backend: Backend, passed: bool) -> None:
    try:
        proven.remember(bundle, backend.name, backend.device, passed)
    except OSError as error:
        _log.warning("The result of the self-test cannot be kept (%s): the GPU has to be asked for.", error)


def _select(
    report: Report, path: Path, name: str | None, threads: int | None, device: str | None
) -> tuple[Bundle | None, Backend | None]:
    try:
        selected = bundles.select(bundles.open_all(path), name, threads, device=device)
    except ValueError:
        raise  # InvalidArgumentError
    except (BackendMissingError, BackendFailedError) as error:
        report.checks.append(Check("backend", False, str(error)))
        return _without_backend(report, path), None
    except (DLFError, OSError) as error:
        report.checks.append(Check("bundle", False, str(error)))
        return None, None
    backend = selected.backend
    report.backend = {
        "name": backend.name,
        "reason": selected.why_backend,
        "device": backend.device,
        "precision": backend.precision,
        "versions": dict(backend.versions),
    }
    report.model |= _describe_bundle(selected.bundle, selected.why_bundle)
    return selected.bundle, backend


def _without_backend(report: Report, path: Path) -> Bundle | None:
    """Return the bundle whose entropy model to test where no backend can run it."""
    try:
        precisions = dict.fromkeys(precision for _, precision in choice.order())
        bundle, reason = bundles.choose(bundles.open_all(path), precisions)
    except DLFError as error:
        report.checks.append(Check("bundle", False, str(error)))
        return None
    report.model |= _describe_bundle(bundle, reason)
    return bundle


def _describe_bundle(bundle: Bundle, reason: str) -> dict[str, str | None]:
    return {
        "folder": str(bundle.path),
        "name": bundle.name,
        "license": bundle.license,
        "fingerprint": bundle.fingerprint,
        "precision": bundle.precision,
        "reason": reason,
    }


def _describe(engine: Engine) -> dict[str, Any]:
    key = engine.key
    return {
        "stage": key.stage,
        "precision": key.precision,
        "library": key.library,
        "version": key.version,
        "gpu": key.gpu,
        "bytes": engine.bytes,
        "path": str(engine.path),
    }
