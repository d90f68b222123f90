//! The other readers: Python's `tarfile`, strict, and GNU tar's listing.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::view::{Time, View, trimmed, unknown};

/// One process for all archives.
pub(crate) struct Python {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

impl Python {
    pub(crate) fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-I", "-c", include_str!("peer.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("this test needs python3: {e}"));
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, input, output }
    }

    /// What it reads, or its complaint.
    pub(crate) fn list(&mut self, archive: &[u8]) -> Result<Vec<View>, String> {
        let input = self.input.as_mut().unwrap();
        input.write_all(&u32::try_from(archive.len()).unwrap().to_le_bytes()).unwrap();
        input.write_all(archive).unwrap();
        let mut length = [0; 4];
        self.output.read_exact(&mut length).unwrap();
        let mut text = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
        self.output.read_exact(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        match text.strip_prefix("ok\n") {
            Some(lines) => Ok(lines.lines().map(python_line).collect()),
            None => Err(text.trim().to_owned()),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.input.take());
        if !std::thread::panicking() {
            assert!(self.child.wait().unwrap().success());
        }
    }
}

fn python_line(line: &str) -> View {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |i: usize| -> i128 { fields[i].parse().unwrap_or(-1) };
    let size = u64::try_from(number(2)).unwrap_or(u64::MAX);
    let (flag, path) = (unhex(fields[1])[0], unhex(fields[0]));
    let kind = match flag {
        b'0' | 0 | b'7' | b'S' => '-',
        b'1' => 'h',
        b'2' => 'l',
        b'3' => 'c',
        b'4' => 'b',
        b'5' => 'd',
        b'6' => 'p',
        other => unknown(other),
    };
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (unhex(name), unhex(value))).unwrap();
    let mut xattrs: Vec<_> = fields[13].split(',').filter(|text| !text.is_empty()).map(pair).collect();
    xattrs.sort();
    let device = |i| u64::try_from(number(i)).unwrap_or(u64::MAX);
    View {
        path: trimmed(&path),
        kind,
        size,
        mode: u32::try_from(number(3)).unwrap_or(u32::MAX),
        uid: number(4),
        gid: number(5),
        mtime: Time::Float(fields[6].parse().unwrap_or(f64::NAN)),
        link: unhex(fields[7]),
        device: (device(8), device(9)),
        digest: Some(fields[10].to_owned()),
        owners: Some((unhex(fields[11]), unhex(fields[12]))),
        xattrs: Some(xattrs),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Lists archives one by one.
pub(crate) struct GnuTar {
    dir: tempfile::TempDir,
}

impl GnuTar {
    pub(crate) fn start() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("archive.tar")
    }

    /// What it lists without a word of complaint, or its complaint.
    pub(crate) fn list(&self, archive: &[u8]) -> Result<Vec<View>, String> {
        std::fs::write(self.path(), archive).unwrap();
        let output = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--full-time", "--quoting-style=c"])
            // Nothing is extracted; otherwise it tells what it would remove from names.
            .arg("--absolute-names")
            // Notes on what it reads like everyone else.
            .args(["--warning=no-alone-zero-block", "--warning=no-unknown-keyword", "--warning=no-timestamp"])
            .arg("--file")
            .arg(self.path())
            .env("LC_ALL", "C")
            .env("TZ", "UTC0")
            .env_remove("TAR_OPTIONS")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("this test needs GNU tar: {e}"));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() || !complaint.is_empty() {
            return Err(format!("{}: {complaint}", output.status));
        }
        Ok(output.stdout.split(|&c| c == b'\n').filter(|line| !line.is_empty()).map(gnu_line).collect())
    }
}

fn gnu_line(line: &[u8]) -> View {
    let line = str::from_utf8(line).unwrap();

    let (front, quoted) = line.split_at(line.find('"').expect(line));
    let words: Vec<&str> = front.split_whitespace().collect();
    let (uid, gid) = words[1].split_once('/').expect(line);
    let (path, rest) = unquote(&quoted[1..]);
    let target = match rest.find('"') {
        Some(start) if rest.starts_with(" -> ") || rest.starts_with(" link to ") => {
            unquote(&rest[start + 1..]).0
        }
        _ => Vec::new(),
    };
    let (size, device) = match words[2].split_once(',') {
        Some((major, minor)) => (0, (major.parse().unwrap(), minor.parse().unwrap())),
        None => (words[2].parse().unwrap(), (0, 0)),
    };
    let kind = match line.as_bytes()[0] {
        b'C' => '-',
        other => other.into(),
    };
    View {
        path: trimmed(&path),
        kind,
        size,
        mode: mode(&words[0].as_bytes()[1..10]),
        uid: uid.parse().unwrap(),
        gid: gid.parse().unwrap(),
        mtime: time(&words[3..]),
        link: target,
        device,
        digest: None,
        owners: None,
        xattrs: None,
    }
}

fn mode(text: &[u8]) -> u32 {
    let mut mode = 0;
    for (i, &c) in text.iter().enumerate() {
        let bit = 0o400 >> i;
        let special = 0o4000 >> (i / 3);
        mode |= match c {
            b'-' => 0,
            b's' | b't' => bit | special,
            b'S' | b'T' => special,
            _ => bit,
        };
    }
    mode
}

/// `2009-02-13 23:31:30.5`, or a bare number where the C library has no date.
fn time(words: &[&str]) -> Time {
    let (whole, fraction) = words.last().unwrap().split_once('.').unwrap_or((words.last().unwrap(), ""));
    let nanoseconds = format!("{fraction:0<9}").parse().unwrap();
    if words.len() == 1 {
        return Time::Listed(whole.parse().unwrap(), nanoseconds);
    }
    let numbers = |text: &str, between| -> Vec<i64> {
        text.rsplitn(3, between).map(|number| number.parse().unwrap()).collect()
    };
    let (date, clock) = (numbers(words[0], '-'), numbers(whole, ':'));
    let (day, month, year) = (date[0], date[1], date[2]);
    // Days since March of the year 0, when leap days come last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    let days = 365 * y + leaps + (153 * m + 2) / 5 + day - 1 - 719_468;
    Time::Listed(days * 86_400 + clock[2] * 3600 + clock[1] * 60 + clock[0], nanoseconds)
}

/// Reads a C string after its opening quote; returns what follows its closing one.
fn unquote(text: &str) -> (Vec<u8>, &str) {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while bytes[i] != b'"' {
        if bytes[i] != b'\\' {
            out.push(bytes[i]);
            i += 1;
            continue;
        }
        i += 2;
        out.push(match bytes[i - 1] {
            b'a' => 7,
            b'b' => 8,
            b't' => 9,
            b'n' => 10,
            b'v' => 11,
            b'f' => 12,
            b'r' => 13,
            digit @ b'0'..=b'7' => {
                i += 2;
                (digit - b'0') << 6 | (bytes[i - 2] - b'0') << 3 | (bytes[i - 1] - b'0')
            }
            other => other,
        });
    }
    (out, &text[i + 1..])
}
