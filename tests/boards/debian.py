"""debian.py: Debian's arm64 packages and kernels for the boards, fetched by apt on a state of its own.

This machine's packages are neither read nor changed; its list of Debian mirrors and its keys are used.
No root needed. What was fetched once is used until `board --refresh`."""

import os
import pathlib
import re
import shutil
import subprocess

import cache
import cpio

UNWANTED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian",
            "usr/share/bug", "usr/share/icons", "usr/share/applications", "usr/lib/debug")


class Missing(Exception):
    """Something a board needs is not to be had; the text names it and the remedy."""


def _apt(program, *words, archives=None):
    """What `apt-get` or `apt-cache` says about arm64."""
    state = cache.root() / "debian" / "apt"
    for directory in ("lists/partial", "archives/partial"):
        (state / directory).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {"APT::Architecture": "arm64", "APT::Architectures": "arm64", "APT::Sandbox::User": "root",
               "APT::Install-Recommends": "0", "Acquire::Languages": "none", "Acquire::Retries": "3",
               "Dir::State": state, "Dir::State::status": state / "status", "Dir::Cache": state,
               "Dir::Cache::archives": archives or state / "archives", "Dir::Cache::pkgcache": "",
               "Dir::Cache::srcpkgcache": "", "Debug::NoLocking": "1"}
    command = [program, "-q"] + [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    try:
        return subprocess.run(command + list(words), check=True, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=archives).stdout
    except FileNotFoundError:
        raise Missing(f"{program} is not installed: this needs Debian's apt") from None
    except subprocess.CalledProcessError as error:
        raise Missing(f"{program} {' '.join(words)}: {error.stderr.strip()}") from None


def refresh():
    """Forgets all packages, so that the newest are fetched. Not while other boards start."""
    shutil.rmtree(cache.root() / "debian", ignore_errors=True)


def _listed():
    cache.made("debian/listed", lambda directory: _apt("apt-get", "update"))


def _download(directory, *words):
    """Runs apt-get with `words`, the packages going to `directory`; a mirror that no longer has what
    the lists say is asked for new lists, once."""
    (directory / "partial").mkdir(exist_ok=True)
    try:
        _apt("apt-get", *words, archives=directory)
    except Missing:
        with cache.locked("debian-listed"):
            _apt("apt-get", "update")
        _apt("apt-get", *words, archives=directory)


def _unpack(deb, tree):
    """Directories that the tree has as links (/lib) stay so, as on a Debian with a merged /usr."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "-x", "-C", tree, "--no-same-owner", "--keep-directory-symlink"],
                       stdin=tar.stdout, check=True)
    if tar.returncode:
        raise Missing(f"{deb} is damaged: delete {deb.parent}")


def tree_of(debs, tree):
    """Unpacks the package files `debs` over each other into the directory `tree`."""
    for name in cpio.MERGED:
        (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (tree / name).exists():
            (tree / name).symlink_to(f"usr/{name}")
    for deb in debs:
        _unpack(deb, tree)


def packages(names):
    """The package files of `names` and of all they depend on."""
    names = sorted(set(names))

    def make(directory):
        _download(directory, "-y", "--download-only", "install", *names)
        shutil.rmtree(directory / "partial")

    _listed()
    return sorted(cache.made(f"debian/packages/{cache.digest(*names)}", make).glob("*.deb"))


def _alone(name, directory):
    """Unpacks the package `name`, without what it depends on, into directory/tree."""
    (directory / "deb").mkdir()
    _download(directory / "deb", "download", name)
    tree_of((directory / "deb").glob("*.deb"), directory / "tree")
    shutil.rmtree(directory / "deb")


def package_tree(name):
    """A directory that holds the package `name` alone."""
    _listed()
    return cache.made(f"debian/alone/{name}", lambda directory: _alone(name, directory)) / "tree"


def archive(names):
    """A cpio archive of the packages `names` and all they depend on, without their documentation."""
    debs = packages(names)

    def make(directory):
        tree_of(debs, directory / "tree")
        for unwanted in UNWANTED:
            shutil.rmtree(directory / "tree" / unwanted, ignore_errors=True)
        with open(directory / "cpio", "wb") as out:
            whole = cpio.Archive(out)
            for child in sorted(os.listdir(directory / "tree")):
                if child not in cpio.MERGED:
                    whole.copy(directory / "tree" / child, child)
            whole.end()
        shutil.rmtree(directory / "tree")

    return cache.made(f"debian/archives/{cache.digest(*[deb.name for deb in debs])}", make) / "cpio"


def tree(names):
    """A directory that holds the packages `names` and all they depend on, for a compiler or for mkfs."""
    debs = packages(names)
    return cache.made(f"debian/trees/{cache.digest(*[deb.name for deb in debs])}",
                      lambda directory: tree_of(debs, directory))


class Kernel:
    """A Debian kernel: `image`, `config`, and `modules(names)`."""

    def __init__(self, flavour):
        _listed()
        self.directory = cache.made(f"debian/kernel-{flavour}", lambda directory: _kernel(directory, flavour))
        self.image = self.directory / "Image"
        self.config = self.directory / "config"
        self.version = (self.directory / "version").read_text()

    def device_tree(self, name):
        return next((self.directory / "tree").rglob(name))

    def modules(self, names):
        """A cpio archive of the modules `names` and those they need, for modprobe."""
        names = sorted(set(name.replace("-", "_") for name in names))

        def make(directory):
            with open(directory / "cpio", "wb") as out:
                _pack_modules(self, names, directory, cpio.Archive(out))

        return cache.made(f"debian/modules-{cache.digest(self.version, *names)}", make) / "cpio"

    def module_tree(self, names, tree):
        """Puts the modules `names` and those they need below tree/lib/modules, for modprobe."""
        base = pathlib.Path("lib/modules") / self.version
        whole, chosen = self.directory / "tree/usr" / base, tree / base
        for path in self.module_files(names):
            target = chosen / path.relative_to(whole)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        chosen.mkdir(parents=True, exist_ok=True)
        for name in ("modules.builtin", "modules.order"):
            shutil.copyfile(whole / name, chosen / name)
        _depmod(tree, self.version)

    def module_files(self, names):
        """The paths of the modules `names` and of those they need, in the order to load them."""
        base = self.directory / "tree/usr/lib/modules" / self.version
        needs = {}
        for line in (base / "modules.dep").read_text().splitlines():
            path, _, rest = line.partition(":")
            needs[_module_name(path)] = [base / word for word in [*reversed(rest.split()), path]]
        files = []
        for name in names:
            files += [path for path in needs.get(name.replace("-", "_"), []) if path not in files]
        return files


def _module_name(path):
    return re.sub(r"\.ko.*", "", path.rpartition("/")[2]).replace("-", "_")


def _depmod(tree, version):
    """Writes the indexes modprobe reads. It laments what only a built kernel's directory has."""
    paths = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    try:
        subprocess.run(["depmod", "-b", tree, version], check=True, stderr=subprocess.DEVNULL,
                       env=dict(os.environ, PATH=paths))
    except FileNotFoundError:
        raise Missing("depmod is not installed (Debian: kmod)") from None


def _kernel(directory, flavour):
    found = re.search(r"Depends: (linux-image-(\d\S*))", _apt("apt-cache", "depends", f"linux-image-{flavour}"))
    if not found:
        raise Missing(f"Debian has no kernel linux-image-{flavour} for arm64")
    package, version = found.groups()
    _alone(package, directory)
    tree = directory / "tree"
    _depmod(tree / "usr", version)
    (tree / "boot" / f"vmlinuz-{version}").rename(directory / "Image")
    (tree / "boot" / f"config-{version}").rename(directory / "config")
    (directory / "version").write_text(version)


def _pack_modules(kernel, names, directory, archive_):
    kernel.module_tree(names, directory / "tree")
    archive_.copy(directory / "tree/lib", "lib")
    archive_.end()
    shutil.rmtree(directory / "tree")
