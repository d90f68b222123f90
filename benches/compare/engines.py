"""Other engines, each with its own root on one ext4 disk in memory, without systemd. Needs root and Linux."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


class Engine:
    """A program with its own root. Its daemon, if it has one, runs from here until `stop`."""

    name = ""
    daemon = None

    def __init__(self, disk, run):
        self.root, self.run = os.path.join(disk, self.name), run
        os.makedirs(self.root)

    def load(self, archive):
        """The command that loads an archive."""
        raise NotImplementedError

    def pull(self, name):
        """The command that pulls an image from a registry on plain HTTP; None where there is none."""
        return None

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
        self.stop()
        with open(log.name) as text:
            sys.exit(f"error: {self.name} does not start\n" + text.read()[-2000:])


class Containerd(Engine):
    name = "containerd"

    def __init__(self, disk, run):
        super().__init__(disk, run)
        self.socket = f"{self.run}/containerd.sock"
        self.ctr = ["ctr", "-a", self.socket]
        config = f"{self.run}/containerd.toml"
        with open(config, "w") as out:
            out.write(f'version = 2\nroot = "{self.root}"\nstate = "{self.run}/containerd"\n')
            out.write('disabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
            out.write(f'[grpc]\naddress = "{self.socket}"\n')
        self.start(["containerd", "--config", config], [*self.ctr, "version"])

    def load(self, archive):
        return [*self.ctr, "image", "import", "--snapshotter", "overlayfs", archive]

    def pull(self, name):
        return [*self.ctr, "image", "pull", "--plain-http", "--snapshotter", "overlayfs", name]


class Podman(Engine):
    name = "podman"
    driver = "overlay"

    def __init__(self, disk, run):
        super().__init__(disk, run)
        self.podman = ["podman", "--root", f"{self.root}/storage", "--runroot", f"{self.run}/podman"]
        self.podman += ["--storage-driver", self.driver]

    def load(self, archive):
        return [*self.podman, "load", "-q", "-i", archive]

    def pull(self, name):
        return [*self.podman, "pull", "-q", "--tls-verify=false", name]


class Docker(Engine):
    name = "docker"

    def __init__(self, disk, run):
        super().__init__(disk, run)
        self.socket = f"unix://{self.run}/docker.sock"
        self.docker = ["docker", "-H", self.socket]
        daemon = ["dockerd", "--data-root", self.root, "--exec-root", f"{self.run}/docker", "-H", self.socket]
        daemon += ["--pidfile", f"{self.run}/docker.pid", "--iptables=false", "--bridge=none", "--storage-driver=overlay2"]
        self.start(daemon, [*self.docker, "version"])

    def load(self, archive):
        return [*self.docker, "load", "-q", "-i", archive]

    def pull(self, name):
        return [*self.docker, "pull", "-q", name]


class Registry(Engine):
    """Debian's docker-registry, on a free port of this machine."""

    name = "registry"

    def __init__(self, disk, run):
        super().__init__(disk, run)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        config = f"{run}/registry.yml"
        with open(config, "w") as out:
            out.write("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n")
            out.write(f"storage: {{filesystem: {{rootdirectory: {self.root}}}}}\nhttp: {{addr: '{self.address}'}}\n")
        self.start(["docker-registry", "serve", config], ["curl", "-fsS", f"http://{self.address}/v2/"])

    def fill(self, archive, name):
        quiet(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{self.address}/{name}"])
        return f"{self.address}/{name}"


def quiet(command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def output(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def workplace(size):
    """Gives a directory, a disk of `size` bytes mounted below it, and a list for the engines that are started. In the
    end those are stopped, and everything is unmounted and removed."""
    run = tempfile.mkdtemp(prefix="layerstore-compare-")
    image, disk = f"/dev/shm/{os.path.basename(run)}.img", f"{run}/disk"
    engines = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with open(image, "wb") as out:
            out.truncate(size)
        quiet(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image])
        os.mkdir(disk)
        quiet(["mount", "-o", "loop", image, disk])
        yield run, disk, engines
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
