"""cache.py: what the laboratory makes once and keeps: fetched packages, kernels, file systems.

Everything kept is a directory, named after what it is made from, and is there whole or not at all:
it is filled under another name and renamed (NAME.new is left only by a power cut). Two boards that want the same thing at once wait for each
other at a lock of that thing's own. The cache outlives `make clean`: TIEBREAK_CACHE, or else
~/.cache/tiebreak. Deleting it, or any directory in it, costs only the time to make it again."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil


def root():
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(os.environ.get("TIEBREAK_CACHE") or os.path.join(home, "tiebreak"))


def digest(*parts):
    """A short name for `parts` (strings, bytes, or paths of files, which count by content)."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, pathlib.Path):
            part = part.read_bytes()
        total.update(hashlib.sha256(part if isinstance(part, bytes) else str(part).encode()).digest())
    return total.hexdigest()[:16]


@contextlib.contextmanager
def locked(name):
    """Held by one process at a time; let go when that process ends, however it ends."""
    path = root() / "locks" / name.replace("/", "-")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made(name, make):
    """The directory `name` of the cache. `make(directory)` fills it if it is not there."""
    final = root() / name
    if final.exists():
        return final
    with locked(name):
        if not final.exists():
            fresh = final.with_name(final.name + ".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            try:
                make(fresh)
            except BaseException:
                shutil.rmtree(fresh)
                raise
            fresh.rename(final)
    return final
