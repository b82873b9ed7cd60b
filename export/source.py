"""What a user names as the source of an export: a file, a bundle, or a folder as model hubs lay it out.

A hub keeps a repository as `blobs/` and `snapshots/REVISION/`, whose files are links to blobs; `refs/main` names a revision.
"""

from pathlib import Path

from dlf.runtime.errors import CheckpointError

SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")


def find(source: Path) -> Path:
    """Return the checkpoint or the bundle that `source` names; of a folder without a manifest, the one checkpoint in it.

    Raises CheckpointError: a folder holds none, or several.
    """
    if not source.is_dir():
        return source
    folder = _snapshot(source)
    if (folder / "manifest.json").is_file():
        return folder
    found = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(f"{folder}: holds neither a bundle nor a checkpoint ({', '.join(SUFFIXES)}); name the file")
    raise CheckpointError(f"{folder}: holds several checkpoints, {', '.join(path.name for path in found)}; name one of them")


def _snapshot(folder: Path) -> Path:
    """The snapshot of a hub's repository: of its main revision, or the only one; any other folder is itself."""
    main = folder / "refs" / "main"
    if main.is_file():
        named = folder / "snapshots" / main.read_text().strip()
        return named if named.is_dir() else folder
    snapshots = sorted((folder / "snapshots").glob("*/"))
    return snapshots[0] if len(snapshots) == 1 else folder
