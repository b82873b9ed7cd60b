"""Print the doctor's report on a terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dlf.runtime.doctor import Report


def show(report: Report, console: Console) -> None:
    """Print what is installed, what would be used, and the results of the self-test."""
    facts = Table.grid(padding=(0, 2))
    for name, fact in _facts(report):
        facts.add_row(f"[bold]{name}[/]", escape(fact))
    console.print(facts, highlight=False)
    console.print()
    checks = Table.grid(padding=(0, 2))
    for check in report.checks:
        verdict = "[green]pass[/]" if check.passed else "[bold red]FAIL[/]"
        checks.add_row(verdict, escape(check.name), escape(check.fact))
    console.print(checks, highlight=False)
    failed = sum(not check.passed for check in report.checks)
    console.print()
    if failed:
        console.print(
            f"[bold red]{failed} of {len(report.checks)} checks failed.[/] Do not trust this installation with this bundle."
        )
    else:
        console.print(f"[green]All {len(report.checks)} checks passed.[/]")


def _facts(report: Report) -> list[tuple[str, str]]:
    installed = [f"{package} {version}" for package, version in report.packages.items() if version]
    missing = [package for package, version in report.packages.items() if not version]
    rows = [
        ("dlf", f"{report.dlf}, Python {report.python}, {report.system}"),
        ("installed", ", ".join(installed)),
        ("not installed", ", ".join(missing) or "-"),
        ("CPU", f"{report.processor}; entropy core on {report.isa or 'unknown, as there is no bundle'}"),
        *(
            ("GPU", f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory}, driver {gpu.driver}")
            for gpu in report.gpus
        ),
    ]
    if not report.gpus:
        rows.append(("GPU", "none that nvidia-smi knows of"))
    model = report.model
    if "name" in model:
        rows.append(("model", f"{model['name']} ({model['fingerprint']}), {model['folder']}"))
        rows.append(("licence", model["license"] or "unknown"))
        rows.append(("precision", f"{model['precision']}: {model['reason']}"))
    else:
        rows.append(("model", str(model["path"])))
    if used := report.backend:
        versions = ", ".join(f"{library} {version}" for library, version in used["versions"].items())
        rows.append(("backend", f"{used['name']}: {used['reason']}"))
        rows.append(("", f"{used['device']}, {used['precision']}, {versions}"))
    else:
        rows.append(("backend", "none"))
    rows += [("", f"{name} cannot be used: {lack}") for name, lack in report.backends.items() if lack]
    rows.append(("engines", f"{len(report.engines)} cached in {report.engine_folder}"))
    for engine in report.engines:
        built = f"{engine['library']} {engine['version']}, {engine['gpu']}, {engine['bytes'] / 1e6:.1f} MB"
        rows.append(("", f"{engine['stage']}, {engine['precision']}, {built}"))
    return rows
