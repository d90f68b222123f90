"""Measures loads into cold stores, interleaved, and prints medians and ratios. Started by `run`, as root.

Every engine has its own root on one ext4 disk in memory, so that times do not depend on the machine's disk.
The inputs are in the page cache. What a run leaves is removed and synced before the next one starts.
"""

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

IMAGES = ["app", "node"]


class Engine:
    """A program that loads images. `daemon` is measured along with the command, if there is one."""

    name = ""
    form = ""
    daemon = None

    def __init__(self, options, disk, run):
        self.options, self.root, self.run = options, os.path.join(disk, self.name), run
        os.makedirs(self.root)

    def command(self, image):
        raise NotImplementedError

    def many(self):
        """The command that loads the archive of many images; None where there is no such form."""
        return None

    def clear(self):
        """Makes the store cold again."""
        shutil.rmtree(self.root)
        os.makedirs(self.root)

    def stop(self):
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait()

    def start(self, command, ready, env=None):
        log = open(os.path.join(self.run, self.name + ".log"), "ab")
        self.daemon = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        for _ in range(200):
            if subprocess.run(ready, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        with open(log.name) as text:
            sys.exit(f"error: {self.name} does not start\n" + text.read()[-2000:])


class Layerstore(Engine):
    name, form = "layerstore", "OCI archive"

    def command(self, image):
        archive = image if os.path.isabs(image) else f"{self.options.images}/{image}.oci.tar"
        return [self.options.layerstore, "--root", self.root, "-q", "load", "-i", archive]

    def many(self):
        return self.command(os.path.abspath(self.options.many))


class LayerstoreDocker(Layerstore):
    name, form = "layerstore (docker-archive)", "docker-archive"

    def command(self, image):
        return super().command(f"{self.options.images}/{image}.docker.tar")

    many = Engine.many


class OciImage(Engine):
    name, form = "oci-image", "OCI layout"

    def command(self, image):
        return [self.options.unpack_bench, "layers", f"{self.options.images}/oci-{image}", self.root]


class Containerd(Engine):
    name, form = "containerd", "OCI archive"

    def __init__(self, *args):
        super().__init__(*args)
        self.socket = f"{self.run}/containerd.sock"
        config = f"{self.run}/containerd.toml"
        with open(config, "w") as out:
            out.write(f'version = 2\nroot = "{self.root}"\nstate = "{self.run}/containerd"\n')
            out.write('disabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
            out.write(f'[grpc]\naddress = "{self.socket}"\n')
        self.start(["containerd", "--config", config], ["ctr", "-a", self.socket, "version"])

    def load(self, archive):
        return ["ctr", "-a", self.socket, "image", "import", "--snapshotter", "overlayfs", archive]

    def command(self, image):
        return self.load(f"{self.options.images}/{image}.oci.tar")

    def many(self):
        return self.load(self.options.many)

    def clear(self):
        for name in output(["ctr", "-a", self.socket, "image", "ls", "-q"]).split():
            quiet(["ctr", "-a", self.socket, "image", "rm", "--sync", name])


class Podman(Engine):
    name, form = "podman", "OCI archive"

    def load(self, archive):
        storage = ["--root", f"{self.root}/storage", "--runroot", f"{self.run}/podman", "--storage-driver", "overlay"]
        return ["podman", *storage, "load", "-q", "-i", archive]

    def command(self, image):
        return self.load(f"{self.options.images}/{image}.oci.tar")

    def many(self):
        return self.load(self.options.many)

    def clear(self):
        subprocess.run(["umount", "-q", f"{self.root}/storage/overlay"], stderr=subprocess.DEVNULL)
        super().clear()


class Docker(Engine):
    name, form = "docker", "docker-archive"

    def __init__(self, *args):
        super().__init__(*args)
        self.socket = f"unix://{self.run}/docker.sock"
        daemon = ["dockerd", "--data-root", self.root, "--exec-root", f"{self.run}/docker", "-H", self.socket]
        daemon += ["--pidfile", f"{self.run}/docker.pid", "--iptables=false", "--bridge=none", "--storage-driver=overlay2"]
        self.start(daemon, ["docker", "-H", self.socket, "version"])

    def load(self, archive):
        return ["docker", "-H", self.socket, "load", "-q", "-i", archive]

    def command(self, image):
        return self.load(f"{self.options.images}/{image}.docker.tar")

    def many(self):
        return self.load(self.options.many)

    def clear(self):
        images = set(output(["docker", "-H", self.socket, "images", "-aq"]).split())
        if images:
            quiet(["docker", "-H", self.socket, "rmi", "-f", *images])


def quiet(command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def output(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


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


def table(title, rows, base):
    print(f"\n{title}\n\n| engine | input | median s | min–max s | layerstore / it | peak MiB |\n| --- | --- | --- | --- | --- | --- |")
    ours = statistics.median(s for s, _ in rows[base])
    for engine, samples in rows.items():
        seconds = [s for s, _ in samples]
        median, peak = statistics.median(seconds), max(p for _, p in samples)
        print(f"| {engine.name} | {engine.form} | {median:.2f} | {min(seconds):.2f}–{max(seconds):.2f} "
              f"| {ours / median:.2f} | {peak:.0f} |")
    sys.stdout.flush()


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
    options = parser.parse_args()
    known = {kind.name: kind for kind in (OciImage, Containerd, Podman, Docker)}
    peers = [] if options.peers == "none" else options.peers.split(",")
    for name in peers:
        if name not in known:
            parser.error(f"no peer is called `{name}`; there are {', '.join(known)}")

    run = tempfile.mkdtemp(prefix="layerstore-compare-")
    image, disk = f"/dev/shm/{os.path.basename(run)}.img", f"{run}/disk"
    engines = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with open(image, "wb") as out:
            out.truncate(14 << 30)
        quiet(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image])
        os.mkdir(disk)
        quiet(["mount", "-o", "loop", image, disk])
        for kind in [Layerstore, LayerstoreDocker, *(known[name] for name in peers)]:
            engines.append(kind(options, disk, run))
        ours = engines[0]
        for name in IMAGES:
            rows = interleaved(engines, lambda engine: engine.command(name), options.runs)
            table(f"`{name}`, cold store, median of {options.runs}", rows, ours)
        many = [e for e in engines if e.many() and (e is ours or options.many_peers)]
        runs = options.runs if len(many) == 1 else 1
        rows = interleaved(many, lambda engine: engine.many(), runs, warm=1 if len(many) == 1 else 0)
        table(f"300 images of 10 layers (docker-archive), median of {runs}", rows, ours)
    finally:
        for engine in engines:
            engine.stop()
        with open("/proc/self/mounts") as mounts:
            below = [line.split()[1] for line in mounts if line.split()[1].startswith(run + "/")]
        for point in reversed(below):
            subprocess.run(["umount", "-l" if point != disk else "-q", point])
        if os.path.exists(image):
            os.unlink(image)
        shutil.rmtree(run, ignore_errors=True)


main()
