"""guests.py: what a virtual machine on a board is started with: kernels, first file systems, programs.

Programs are compiled here for arm64, static, so that a guest or a board needs nothing else."""

import pathlib
import subprocess

import cache
import cpio
import debian
import rootfs
import smallkernel

HERE = pathlib.Path(__file__).resolve().parent / "guest"
GCC = "aarch64-linux-gnu-gcc"
SYSROOT = ("libc6-dev", "libgcc-12-dev", "linux-libc-dev")
WARNINGS = ("-std=gnu17", "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wvla",
            "-Wformat=2", "-Werror")
STATIC = (*WARNINGS, "-D_GNU_SOURCE", "-O2", "-static", "-s")
FREESTANDING = (*WARNINGS, "-Os", "-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
                "-mgeneral-regs-only", "-mstrict-align", "-mcmodel=tiny", "-nostdlib", "-static", "-fno-pic", "-no-pie",
                "-Wl,--build-id=none,--no-warn-rwx-segments")
MODULES = ("virtio_mmio", "virtio_console", "virtio_blk", "virtio_net", "virtio_rng", "virtio_balloon",
           "virtio_input", "evdev", "vmw_vsock_virtio_transport", "ext4")


def _run(*words):
    try:
        subprocess.run(words, check=True)
    except FileNotFoundError:
        raise debian.Missing(f"{words[0]} is not installed (Debian: gcc-aarch64-linux-gnu)") from None
    except subprocess.CalledProcessError:
        raise debian.Missing(f"{words[0]} failed, see above") from None


def _static(name, folder):
    """The program `name` made of all C files of `folder`."""
    sources = sorted(folder.glob("*.c"))
    sysroot = debian.tree(SYSROOT)
    key = cache.digest(*STATIC, *sources, *sorted(folder.glob("*.h")))
    return cache.made(f"programs/{name}-{key}",
                      lambda directory: _run(GCC, f"--sysroot={sysroot}", *STATIC, "-o", directory / name,
                                             *sources)) / name


def program():
    """The guest program: the init of a guest, and its peer on a board."""
    return _static("guest", HERE)


def timer():
    """The program that measures how a VM starts (timer/timer.c)."""
    return _static("timer", HERE / "timer")


def talk():
    """The program that talks to another over a terminal (talk/talk.c)."""
    return _static("talk", HERE / "talk")


def bare():
    """An Image of less than 2 KiB that runs the moment its vCPU does (bare/bare.c)."""
    folder = HERE / "bare"
    sources = [folder / "head.S", folder / "bare.c"]

    def make(directory):
        _run(GCC, *FREESTANDING, f"-Wl,-T,{folder / 'bare.ld'}", "-o", directory / "elf", *sources)
        _run("aarch64-linux-gnu-objcopy", "-O", "binary", directory / "elf", directory / "bare")

    return cache.made(f"programs/bare-{cache.digest(*FREESTANDING, *sources, folder / 'bare.ld')}", make) / "bare"


def kernel():
    """Debian's kernel for virtual machines."""
    return debian.Kernel("cloud-arm64").image


def init():
    """A first file system with the guest program as init and nothing else: the fastest to boot."""
    return _initrd(modules=False, busybox=False)


def tiny():
    """The same with the cloud kernel's virtio modules."""
    return _initrd(modules=True, busybox=False)


def busybox():
    """The same with busybox too, for the word `shell`: for people."""
    return _initrd(modules=True, busybox=True)


def _initrd(**parts):
    debian_kernel = debian.Kernel("cloud-arm64")
    first = program()

    def make(directory):
        with open(directory / "initrd", "wb") as out:
            archive = cpio.Archive(out)
            archive.directory("dev")
            archive.device("dev/console", 5, 1)
            archive.file("init", first.read_bytes(), 0o755)
            for index, path in enumerate(debian_kernel.module_files(MODULES) if parts["modules"] else []):
                archive.file(f"modules/{index:02}-{path.name}", path.read_bytes())
            if parts["busybox"]:
                _pack_busybox(archive)
            archive.end()

    key = cache.digest(first, debian_kernel.version, *MODULES, *parts.values())
    return cache.made(f"initrds/{key}", make) / "initrd"


def _pack_busybox(archive):
    """Without links for its applets: its shell finds them by itself."""
    for name in cpio.MERGED:
        archive.link(name, f"usr/{name}")
    archive.copy(next(debian.tree(["busybox-static"]).rglob("bin/busybox")), "bin/busybox")
    archive.link("bin/sh", "busybox")


# What `board --guest NAME` puts on a board, and where.
PARTS = {"program": (program, "/bin/guest"), "timer": (timer, "/bin/timer"),
         "talk": (talk, "/bin/talk"), "bare": (bare, "/guest/bare"),
         "kernel": (kernel, "/guest/kernel"), "small": (smallkernel.image, "/guest/small"), "init": (init, "/guest/init"), "tiny": (tiny, "/guest/tiny"),
         "busybox": (busybox, "/guest/busybox")}
# What it gives the board as a disk, /dev/NAME; what is written there is forgotten at the end.
DISKS = {"root": rootfs.image}
