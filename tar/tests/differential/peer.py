# Reads archives from stdin, each after its length, and says for each what tarfile makes of it.
import hashlib, io, signal, struct, sys, tarfile

MOST = 1 << 20  # Content is compared of files up to this size.


class Info(tarfile.TarInfo):
    broken = None

    # tarfile takes a bad header for the end of the archive, except for the first; here it is an error.
    @classmethod
    def fromtarfile(cls, tar):
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.EmptyHeaderError:
            raise
        except tarfile.HeaderError as error:
            Info.broken = error
            raise

    # A negative size would send it back to where it was.
    def _block(self, count):
        if count < 0:
            raise tarfile.ReadError("negative size")
        return super()._block(count)


def encode(text):
    return text.encode("utf-8", "surrogateescape").hex()


def describe(tar, info):
    digest = "-"
    if info.isreg() and info.size <= MOST:
        data = tar.extractfile(info).read()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
    prefix = "SCHILY.xattr."
    xattrs = sorted((encode(key[len(prefix):]), encode(value))
                    for key, value in info.pax_headers.items() if key.startswith(prefix))
    return [encode(info.name), info.type.hex(), info.size, info.mode & 0o7777, info.uid, info.gid, repr(info.mtime),
            encode(info.linkname), info.devmajor, info.devminor, digest, encode(info.uname), encode(info.gname),
            ",".join(key + "=" + value for key, value in xattrs)]


def answer(archive):
    Info.broken = None
    lines = []
    try:
        tar = tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8", errors="surrogateescape",
                           tarinfo=Info)
        for info in tar:
            lines.append("\t".join(str(field) for field in describe(tar, info)))
        if Info.broken:
            raise Info.broken
    except Exception as error:
        return "error " + repr(str(error) or type(error).__name__) + "\n"
    return "".join(line + "\n" for line in ["ok"] + lines)


while True:
    length = sys.stdin.buffer.read(4)
    if not length:
        break
    archive = sys.stdin.buffer.read(struct.unpack("<I", length)[0])
    signal.alarm(20)
    text = answer(archive).encode("ascii", "backslashreplace")
    signal.alarm(0)
    sys.stdout.buffer.write(struct.pack("<I", len(text)) + text)
    sys.stdout.buffer.flush()
