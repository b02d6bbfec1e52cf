"""smallkernel.py: the small purpose-built kernel: Debian's source of Linux 6.1 with kernel.config.

Takes about ten minutes of two cores, once; then it is in the cache. Run `board --prepare -G small`."""

import os
import pathlib
import shutil
import subprocess

import cache
import debian

HERE = pathlib.Path(__file__).resolve().parent
CROSS = ("ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-")
# Same source, same compiler: same Image.
STEADY = {"KBUILD_BUILD_TIMESTAMP": "1 Jan 2026", "KBUILD_BUILD_USER": "tiebreak", "KBUILD_BUILD_HOST": "tiebreak"}
TOOLS = ("make", "aarch64-linux-gnu-gcc", "bison", "flex", "bc", "perl", "xz")


def _make(source, *words):
    subprocess.run(["nice", "-n", "19", "make", "-s", f"-j{os.cpu_count()}", "-C", source, *CROSS, *words],
                   check=True, env=dict(os.environ, **STEADY), stdout=subprocess.DEVNULL)


def _build(directory):
    source = directory / "source"
    source.mkdir()
    archive = next(debian.package_tree("linux-source-6.1").rglob("linux-source-*.tar.xz"))
    subprocess.run(["tar", "-x", "-C", source, "--strip-components=1", "-f", archive], check=True)
    _make(source, "allnoconfig", f"KCONFIG_ALLCONFIG={HERE / 'kernel.config'}")
    _make(source, "Image")
    (source / "arch/arm64/boot/Image").rename(directory / "Image")
    (source / ".config").rename(directory / "config")
    shutil.rmtree(source)


def image():
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise debian.Missing(f"the small kernel needs {' '.join(missing)}")
    try:
        return cache.made(f"small-kernel/{cache.digest(HERE / 'kernel.config')}", _build) / "Image"
    except subprocess.CalledProcessError as error:
        raise debian.Missing(f"the small kernel: {error}") from None
