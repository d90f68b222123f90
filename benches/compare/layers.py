"""What becomes of each case in each engine, as tables in docs/layers.md. Started by `layers`, as root.

What is looked at is the file system that an engine would give a container: its own overlay mount, for docker the one
that dockerd would make; umoci unpacks into a directory.
"""

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import threading

import engines
from engines import output

PAGE = "docs/layers.md"
SECOND = "Attributes, forms of tar, streams"


class Refused(Exception):
    """The engine does not take the image."""


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120)
    if done.returncode != 0:
        raise Refused((done.stderr.strip() or done.stdout.strip()))
    return done.stdout


class Looks:
    """Mixed into an engine: how it is asked, and who it is."""

    def __init__(self, options, disk, run):
        self.options = options
        super().__init__(disk, run)
        self.at = f"{run}/{self.name}-mounted"
        os.makedirs(self.at, exist_ok=True)

    def look(self, image, name, folder, describe):
        """What is seen of an image, as `describe` says it of a directory."""
        raise NotImplementedError

    def seen(self, image, folder):
        # The cases of cases.toml say nothing of times and links.
        tool = [self.options.cases, "describe", *([] if image["place"] else ["--all"])]
        try:
            describe = lambda directory: output([*tool, directory]).splitlines()
            return {"seen": self.look(image["id"], image["name"], folder, describe)}
        except Refused as refused:
            return {"refused": str(refused)}
        except subprocess.TimeoutExpired:
            return {"refused": "no answer within two minutes"}


class Layerstore(Looks, engines.Engine):
    name = "layerstore"

    def version(self):
        return output([self.options.layerstore, "--version"]).split()[-1]

    def look(self, image, name, folder, describe):
        tool = [self.options.layerstore, "--root", self.root, "-q"]
        run([*tool, "load", "-i", f"{folder}/{image}.oci.tar"])
        run([*tool, "mount", name, self.at])
        try:
            return describe(self.at)
        finally:
            run([*tool, "umount", self.at])


class Docker(Looks, engines.Docker):
    def version(self):
        return output([*self.docker, "version", "-f", "{{.Server.Version}}"]).strip()

    def look(self, image, name, folder, describe):
        run(self.load(f"{folder}/{image}.docker.tar"))
        data = json.loads(run([*self.docker, "image", "inspect", "-f", "{{json .GraphDriver.Data}}", name]))
        lower = ":".join(filter(None, [data["UpperDir"], data.get("LowerDir")]))
        upper, work = f"{self.root}/looks/{image}/upper", f"{self.root}/looks/{image}/work"
        # A container's root is this directory, which dockerd makes with the mode 0755.
        os.makedirs(upper, 0o755)
        os.makedirs(work)
        how = f"index=off,lowerdir={lower},upperdir={upper},workdir={work}"
        run(["mount", "-t", "overlay", "-o", how, "overlay", self.at])
        try:
            return describe(self.at)
        finally:
            run(["umount", self.at])


class Containerd(Looks, engines.Containerd):
    def version(self):
        return output(["containerd", "--version"]).split()[2]

    def look(self, image, name, folder, describe):
        run(self.load(f"{folder}/{image}.oci.tar"))
        at = f"{self.at}/{image}"
        os.makedirs(at)
        run([*self.ctr, "image", "mount", "--snapshotter", "overlayfs", "--rw", name, at])
        try:
            return describe(at)
        finally:
            run([*self.ctr, "image", "unmount", "--rm", "--snapshotter", "overlayfs", at])


class Podman(Looks, engines.Podman):
    def version(self):
        return output(["podman", "--version"]).split()[-1]

    def look(self, image, name, folder, describe):
        loaded = run(self.load(f"{folder}/{image}.oci.tar")).split()[-1]
        container = None
        try:
            container = run([*self.podman, "create", "--network", "none", loaded]).strip()
            return describe(run([*self.podman, "mount", container]).strip())
        finally:
            if container:
                run([*self.podman, "rm", "-f", "-v", container])
            # Else it would take a layer that two cases share from its own storage the second time.
            run([*self.podman, "rmi", "-f", loaded])


class Umoci(Looks, engines.Engine):
    name = "umoci"

    def version(self):
        return output(["umoci", "--version"]).split()[2]

    def look(self, image, name, folder, describe):
        run(["umoci", "unpack", "--image", f"{folder}/{image}:case", f"{self.root}/{image}"])
        return describe(f"{self.root}/{image}/rootfs")


class PodmanVfs(Podman):
    name, driver = "podman-vfs", "vfs"


ENGINES = [Layerstore, Docker, Containerd, Podman, Umoci]
# It unpacks a layer onto a copy of those below. Only who asks for it gets it.
MORE = [PodmanVfs]


def release(version):
    """Without what the packager adds."""
    return re.split(r"[~+]", version)[0]


def code(text):
    return f"`{text}`".replace("|", "\\|")


def path(line):
    return re.split(r" (?:->|=|c \d|\||\?|[0-7]{4}$)|/ |/$", line + " ")[0].strip()


# What engines say before they say what is wrong, and behind it.
NOISE = [
    r"sha256:[0-9a-f]+", r"\S*/layerstore-compare-\S*?(?=[\s:\",]|$)",
    r".*processing tar file\((exit status 1)?\)?:? ?",
    r"\): (exit status 1)?$", r"^ctr: ", r"failed to extract layer\s*: ", r"mount callback failed on\s*: ",
    r": unknown$",
    r".*unpack rootfs: ", r"(unpack )?layer\s*: ", r"unpack entry: ", r".*writing blob: ", r".*storing blob to file \S+: ", r"\):$",
]


def shortened(message):
    """The reason in a message."""
    lines = message.splitlines() or [""]
    # podman tries other kinds of archive as well.
    line = next((line for line in lines if line.startswith(" * oci-archive: ")), lines[-1])
    for noise in NOISE:
        line = re.sub(noise, "", line)
    line = " ".join(re.sub(r"n{9,}[n/]*", "nnn…", line).replace("`", "'").split())
    return line if len(line) < 90 else "… " + line[-88:].lstrip()


def difference(image, result):
    """None if it is as stated."""
    if "refused" in result:
        return None if image["refused"] is not None else f"refused: {code(shortened(result['refused']))}"
    seen = result["seen"]
    if not any(line.startswith("./") for line in image["seen"] or []):
        # The root of podman's containers, which the page says once.
        seen = [line for line in seen if line != "./ 0555"]
    if image["refused"] is not None:
        seen = [line for line in seen if line not in ("base = x", "top = x")]
        return f"accepted: {', '.join(map(code, seen))}" if seen else "accepted, nothing seen"
    stated, seen = set(image["seen"]), set(seen)
    missing = {path(line): line for line in sorted(stated - seen)}
    parts = []
    for line in sorted(seen - stated):
        where = path(line)
        if line.endswith(" ?"):
            parts.append(f"{code(line[:-2])} is listed but absent")
        elif where in missing:
            parts.append(f"{code(line)} instead of {code(missing.pop(where))}")
        else:
            parts.append(f"also {code(line)}")
    parts += [f"no {code(line)}" for line in missing.values()]
    return "; ".join(parts[:3] + ["…"] * (len(parts) > 3)) or None


def verdict(looks):
    """One cell, from `(image, result)` of each place that a case is looked at in."""
    found = [(image["place"], difference(image, result)) for image, result in looks]
    texts = {text for _, text in found}
    if len(texts) == 1:
        return texts.pop() or "as stated"
    return "; ".join(f"{place}: {text}" for place, text in found if text)


def headings():
    """The heading of each case, as cases.toml has them between lines."""
    heading, of, rule = "Whiteouts, and one thing in the place of another", {}, False
    with open("fixtures/layers/cases.toml") as lines:
        for line in lines:
            if line.startswith("# ---"):
                rule = True
                continue
            if rule and line.startswith("# "):
                heading = line[2:].strip().rstrip(".")
            elif line.startswith("name = "):
                of[json.loads(line[len("name = "):])] = heading
            rule = False
    return of


def tables(asked, images, results):
    of, cases = headings(), {}
    for image in images:
        cases.setdefault((of.get(image["case"], SECOND), image["case"]), []).append(image)
    lines, last, deviations = [], None, dict.fromkeys(asked, 0)
    for (heading, case), looks in cases.items():
        if heading != last:
            names = " | ".join(asked)
            lines += ["", f"### {heading}", "", f"| case | rule | {names} |", "| --- | --- |" + " --- |" * len(asked)]
            last = heading
        rule = looks[0]["rule"]
        if looks[0]["refused"] is not None and len({look["refused"] is None for look in looks}) == 1:
            rule = "refused: " + rule
        cells = []
        for name in asked:
            cells.append(verdict([(look, results[name][look["id"]]) for look in looks]))
            deviations[name] += cells[-1] != "as stated"
        lines.append(f"| {case} | {rule.replace('|', chr(92) + '|')} | {' | '.join(cells)} |")
    count = ", ".join(f"{name} {number}" for name, number in deviations.items())
    return [f"Of {len(cases)} cases, so many are not as stated: {count}.", *lines]


def write(text):
    with open(PAGE) as page:
        before, rest = page.read().split("<!-- measured: begin -->\n")
        after = rest.split("<!-- measured: end -->")[1]
    with open(PAGE, "w") as page:
        page.write(f"{before}<!-- measured: begin -->\n{text}\n<!-- measured: end -->{after}")


def main():
    parser = argparse.ArgumentParser(prog="benches/compare/layers")
    parser.add_argument("--layerstore", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--cases", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--only", help="engines, with commas between them")
    parser.add_argument("--log", help="a file for all results")
    parser.add_argument("--print", action="store_true")
    options = parser.parse_args()
    known = {kind.name: kind for kind in ENGINES + MORE}
    asked = options.only.split(",") if options.only else [kind.name for kind in ENGINES]
    for name in asked:
        if name not in known:
            parser.error(f"no engine is called `{name}`; there are {', '.join(known)}")

    with engines.workplace(4 << 30) as (work, disk, started):
        folder = f"{disk}/images"
        os.mkdir(folder)
        images = json.loads(output([options.cases, "write", folder]))
        for name in asked:
            started.append(known[name](options, disk, work))
        versions = ", ".join(f"{engine.name} {release(engine.version())}" for engine in started)
        # Engines side by side, each with one image after the other.
        ended = threading.Event()
        ask = lambda engine: {image["id"]: engine.seen(image, folder) for image in images if not ended.is_set()}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            try:
                results = dict(zip(asked, pool.map(ask, started)))
            finally:
                ended.set()
    if options.log:
        full = [{**image, "results": {name: results[name][image["id"]] for name in asked}} for image in images]
        with open(options.log, "w") as out:
            json.dump(full, out, indent=1)
    caption = f"Measured on Linux {os.uname().release.split('-')[0]} with {versions}; overlay mounts on ext4."
    text = "\n".join([caption, "", *tables(asked, images, results)])
    if options.print or options.only:
        print(text)
    else:
        write(text)
        sys.stderr.write(f"{PAGE} is up to date\n")


main()
