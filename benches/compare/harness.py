"""Measures loads and pulls into cold stores, interleaved, and prints medians and ratios. Started by `run`, as root.

Every engine has its own root on one ext4 disk in memory, so that times do not depend on the machine's disk.
The inputs are in the page cache. What a run leaves is removed and synced before the next one starts.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time

import engines
from engines import output, quiet

IMAGES = ["app", "node"]


class Measured:
    """An engine that loads images. `daemon` is measured along with the command, if there is one."""

    form = ""

    def __init__(self, options, disk, run, suffix=""):
        self.options = options
        super().__init__(f"{disk}/{suffix}", run)

    def command(self, image):
        return self.load(f"{self.options.images}/{image}.oci.tar")

    def many(self):
        """The command that loads the archive of many images; None where there is no such form."""
        return self.load(self.options.many)

    def clear(self):
        """Makes the store cold again."""
        shutil.rmtree(self.root)
        os.makedirs(self.root)


class Layerstore(Measured, engines.Engine):
    name, form = "layerstore", "OCI archive"

    def load(self, archive):
        return [self.options.layerstore, "--root", self.root, "-q", "load", "-i", archive]

    def pull(self, name):
        return [self.options.layerstore, "--root", self.root, "-q", "pull", name]


class LayerstoreDocker(Layerstore):
    name, form = "layerstore (docker-archive)", "docker-archive"

    def command(self, image):
        return self.load(f"{self.options.images}/{image}.docker.tar")

    def many(self):
        return None

    def pull(self, name):
        return None


class OciImage(Measured, engines.Engine):
    name, form = "oci-image", "OCI layout"

    def command(self, image):
        return [self.options.unpack_bench, "layers", f"{self.options.images}/oci-{image}", self.root]

    def many(self):
        return None


class Containerd(Measured, engines.Containerd):
    form = "OCI archive"

    def clear(self):
        for name in output([*self.ctr, "image", "ls", "-q"]).split():
            quiet([*self.ctr, "image", "rm", "--sync", name])


class Podman(Measured, engines.Podman):
    form = "OCI archive"

    def clear(self):
        subprocess.run(["umount", "-q", f"{self.root}/storage/overlay"], stderr=subprocess.DEVNULL)
        super().clear()


class Docker(Measured, engines.Docker):
    form = "docker-archive"

    def command(self, image):
        return self.load(f"{self.options.images}/{image}.docker.tar")

    def clear(self):
        images = set(output([*self.docker, "images", "-aq"]).split())
        if images:
            quiet([*self.docker, "rmi", "-f", *images])


def measure(engine, command):
    """Seconds, and the peak resident memory of the largest process in MiB: the daemon's or the command's."""
    os.sync()
    if engine.daemon:
        with open(f"/proc/{engine.daemon.pid}/clear_refs", "w") as out:
            out.write("5")  # forget the high-water mark so far
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    talk = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"error: {' '.join(command)} ended with {child.returncode}\n{talk.decode()}")
    peak = usage.ru_maxrss
    if engine.daemon:
        with open(f"/proc/{engine.daemon.pid}/status") as status:
            peak = max(peak, *(int(line.split()[1]) for line in status if line.startswith("VmHWM:")))
    return seconds, peak / 1024


def table(title, rows, base, forms=None):
    print(f"\n{title}\n\n| engine | input | median s | min–max s | layerstore / it | peak MiB |\n| --- | --- | --- | --- | --- | --- |")
    ours = statistics.median(s for s, _ in rows[base])
    for engine, samples in rows.items():
        seconds = [s for s, _ in samples]
        median, peak = statistics.median(seconds), max(p for _, p in samples)
        print(f"| {engine.name} | {(forms or {}).get(engine, engine.form)} | {median:.2f} | {min(seconds):.2f}–{max(seconds):.2f} "
              f"| {ours / median:.2f} | {peak:.0f} |")
    sys.stdout.flush()


def pulls(options, disk, run, started, ours):
    """The same images from a registry on this machine, whose work counts, as the network's would not; and our own load
    beside it."""
    registry = engines.Registry(disk, run)
    started.append(registry)
    pulling = [engine for engine in started if engine.pull("")]
    loading = Layerstore(options, disk, run, "load")
    for image in IMAGES:
        name = registry.fill(f"{options.images}/{image}.oci.tar", f"{image}:1")
        rows = interleaved(
            [*pulling, loading],
            lambda engine: engine.command(image) if engine is loading else engine.pull(name),
            options.runs,
        )
        forms = {engine: "registry" for engine in pulling}
        table(f"`{image}` from a registry on loopback, cold store, median of {options.runs}", rows, ours, forms)


def interleaved(engines, command, runs, warm=1):
    rows = {engine: [] for engine in engines}
    for run in range(runs + warm):
        for engine in engines:
            engine.clear()
            sample = measure(engine, command(engine))
            if run >= warm:
                rows[engine].append(sample)
    for engine in engines:
        engine.clear()
    return rows


def main():
    parser = argparse.ArgumentParser(prog="benches/compare/run")
    parser.add_argument("--layerstore", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--unpack-bench", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--images", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--many", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", default="oci-image,containerd,podman,docker")
    parser.add_argument("--many-peers", action="store_true")
    parser.add_argument("--only", choices=["load", "pull"])
    options = parser.parse_args()
    known = {kind.name: kind for kind in (OciImage, Containerd, Podman, Docker)}
    peers = [] if options.peers == "none" else options.peers.split(",")
    for name in peers:
        if name not in known:
            parser.error(f"no peer is called `{name}`; there are {', '.join(known)}")

    with engines.workplace(14 << 30) as (run, disk, started):
        for kind in [Layerstore, LayerstoreDocker, *(known[name] for name in peers)]:
            started.append(kind(options, disk, run))
        ours = started[0]
        if options.only != "load":
            pulls(options, disk, run, started, ours)
            started.pop().stop()
        if options.only == "pull":
            return
        for name in IMAGES:
            rows = interleaved(started, lambda engine: engine.command(name), options.runs)
            table(f"`{name}`, cold store, median of {options.runs}", rows, ours)
        many = [e for e in started if e.many() and (e is ours or options.many_peers)]
        runs = options.runs if len(many) == 1 else 1
        rows = interleaved(many, lambda engine: engine.many(), runs, warm=1 if len(many) == 1 else 0)
        table(f"300 images of 10 layers (docker-archive), median of {runs}", rows, ours)


main()
