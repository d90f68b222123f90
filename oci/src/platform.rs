//! Platforms: `os/architecture[/variant]`, and which of several an image should be taken from.
//!
//! Names, aliases and the order of preference are those of containerd's `platforms` package.

use std::fmt;
use std::str::FromStr;

use crate::ErrorKind;

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a platform: {reason}")]
#[non_exhaustive]
pub struct PlatformError {
    /// The text given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl PlatformError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// What an image was built for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// Operating system, in Go's words: `linux`.
    pub os: String,
    /// CPU architecture, in Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// Level of the architecture: `v7` of `arm`, `v3` of `amd64`.
    pub variant: Option<String>,
    /// Version of the operating system; only Windows images carry one.
    pub os_version: Option<String>,
    /// Features of the operating system that the image cannot do without.
    pub os_features: Vec<String>,
}

impl Platform {
    /// A platform in normal form: `x86_64` becomes `amd64`, `arm` becomes `arm/v7`.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
            os_features: Vec::new(),
        }
        .normalised()
    }

    /// The platform this program was built for.
    ///
    /// 32-bit ARM is taken for v7, the level every distribution's `armhf` but Raspbian's needs.
    pub fn host() -> Self {
        let little = cfg!(target_endian = "little");
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" if little => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            "mips64" if little => "mips64le",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }

    /// The same platform in normal form, as `platforms.Normalize` does.
    #[must_use]
    pub fn normalised(&self) -> Self {
        let os = match self.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.as_deref().unwrap_or_default().to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64", ""),
            ("x86_64" | "x86-64", level) => ("amd64", level),
            ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64", ""),
            ("aarch64", level) => ("arm64", level),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        Self {
            os,
            architecture: architecture.to_owned(),
            variant: (!variant.is_empty()).then(|| variant.to_owned()),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        }
    }

    /// What this platform can run, best first, as `platforms.Only` has it: a level runs the levels
    /// below it, `amd64` runs `386`, `arm64` runs `arm`.
    pub fn accepts(&self) -> Vec<Self> {
        let own = self.normalised();
        let level = own.variant.as_deref().unwrap_or_default();
        let mut list = vec![own.clone()];
        let mut push = |architecture: &str, variant: &str| {
            let variant = (!variant.is_empty()).then(|| variant.to_owned());
            let architecture = architecture.to_owned();
            list.push(Self { architecture, variant, ..own.clone() }.normalised());
        };
        match own.architecture.as_str() {
            "amd64" => {
                for lower in below(level, 1) {
                    push("amd64", &format!("v{lower}"));
                }
                push("386", "");
            }
            "arm" => {
                for lower in below(level, 5) {
                    push("arm", &format!("v{lower}"));
                }
            }
            "arm64" => {
                let (major, minor) = arm64_level(level);
                let name = |major: u8, minor: u8| match minor {
                    0 => format!("v{major}"),
                    minor => format!("v{major}.{minor}"),
                };
                let mut minor_of_8 = minor;
                if major == 9 {
                    for lower in (0..minor).rev() {
                        push("arm64", &name(9, lower));
                    }
                    // Armv9.x has what Armv8.(x+5) has.
                    minor_of_8 = minor.saturating_add(6);
                }
                for lower in (0..minor_of_8).rev() {
                    push("arm64", &name(8, lower));
                }
                for level in ["v8", "v7", "v6", "v5"] {
                    push("arm", level);
                }
            }
            _ => {}
        }
        list
    }

    /// The index of the candidate that suits this platform best, the first of equals.
    ///
    /// A candidate that says nothing about its platform (`None`) is never chosen.
    pub fn select<'a>(&self, candidates: impl IntoIterator<Item = Option<&'a Self>>) -> Option<usize> {
        let accepted = self.accepts();
        candidates
            .into_iter()
            .enumerate()
            .filter_map(|(index, candidate)| {
                let candidate = candidate?.normalised();
                let rank = accepted.iter().position(|accepted| accepted.matches(&candidate))?;
                Some((rank, index))
            })
            .min()
            .map(|(_, index)| index)
    }

    /// Whether this platform can run what was built for `candidate`.
    pub fn runs(&self, candidate: &Self) -> bool {
        self.select([Some(candidate)]).is_some()
    }

    fn matches(&self, candidate: &Self) -> bool {
        self.os == candidate.os
            && self.architecture == candidate.architecture
            && self.variant == candidate.variant
            && candidate.os_features.iter().all(|feature| self.os_features.contains(feature))
    }
}

/// The levels from just under `level` (`v3`) down to `lowest`.
fn below(level: &str, lowest: u8) -> impl Iterator<Item = u8> {
    let level = level.strip_prefix('v').unwrap_or(level).parse().unwrap_or(0);
    (lowest..level).rev()
}

/// Major and minor of an arm64 variant: none is v8; what is not known runs only itself and `arm`.
fn arm64_level(variant: &str) -> (u8, u8) {
    let variant = variant.strip_prefix('v').unwrap_or(variant);
    let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
    match (major.parse(), minor.parse()) {
        (Ok(major @ 8..=9), Ok(minor)) => (major, minor),
        _ => (8, 0),
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Parses `os`, `architecture`, `os/architecture` or `os/architecture/variant`, where `os` may
    /// be `os(version)`. What is left out is Linux, or the architecture of the host.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let fail = |reason| PlatformError { text: text.to_owned(), reason };
        let word = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let mut parts = text.split('/');
        let first = parts.next().unwrap_or_default();
        let (os, os_version) = match first.strip_suffix(')').and_then(|first| first.split_once('(')) {
            Some((os, version)) => (os, Some(version)),
            None => (first, None),
        };
        let rest: Vec<&str> = parts.collect();
        if !word(os) || !rest.iter().copied().chain(os_version).all(word) {
            return Err(fail("expected os/architecture or os/architecture/variant"));
        }
        let mut platform = match rest[..] {
            [] if is_known_os(os) => Self { os: os.to_owned(), ..Self::host() }.normalised(),
            [] => {
                let platform = Self::new("linux", os, None);
                if os_version.is_some() || !is_known_architecture(&platform.architecture) {
                    return Err(fail("neither a known operating system nor a known architecture"));
                }
                platform
            }
            [architecture] => Self::new(os, architecture, None),
            [architecture, variant] => Self::new(os, architecture, Some(variant)),
            _ => return Err(fail("expected at most three parts")),
        };
        platform.os_version = os_version.map(str::to_owned);
        Ok(platform)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = |text: &str| if text.is_empty() { "unknown".to_owned() } else { text.to_owned() };
        f.write_str(&unknown(&self.os))?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", unknown(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Go's `GOOS` values; needed to tell `linux` from `arm64` when only one word is given.
fn is_known_os(os: &str) -> bool {
    matches!(
        os.to_ascii_lowercase().as_str(),
        "aix"
            | "android"
            | "darwin"
            | "dragonfly"
            | "freebsd"
            | "illumos"
            | "linux"
            | "macos"
            | "netbsd"
            | "openbsd"
            | "plan9"
            | "solaris"
            | "wasip1"
            | "windows"
    )
}

fn is_known_architecture(architecture: &str) -> bool {
    matches!(
        architecture,
        "386"
            | "amd64"
            | "arm"
            | "arm64"
            | "loong64"
            | "mips"
            | "mips64"
            | "mips64le"
            | "mipsle"
            | "ppc64"
            | "ppc64le"
            | "riscv64"
            | "s390x"
            | "wasm"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn accepted(text: &str) -> String {
        let names: Vec<_> = parse(text).accepts().iter().map(ToString::to_string).collect();
        names.join(" ").replace("linux/", "")
    }

    #[test]
    fn names_are_normalised() {
        for (text, expected) in [
            ("linux/arm64/v8", "linux/arm64"),
            ("arm64", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/aarch64/v8.2", "linux/arm64/v8.2"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/x86-64/v3", "linux/amd64/v3"),
            ("i386", "linux/386"),
            ("arm", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("linux/arm/6", "linux/arm/v6"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("linux/made-up", "linux/made-up"),
        ] {
            assert_eq!(parse(text).to_string(), expected, "{text}");
            assert_eq!(parse(expected), parse(text));
        }
        assert_eq!(parse("linux").architecture, Platform::host().architecture);
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in
            ["", "/", "linux/", "linux//v8", "made-up", "linux/a/b/c", "linux/*", "arm64(1)", "li nux/arm"]
        {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn lower_levels_are_accepted_in_order() {
        assert_eq!(accepted("amd64"), "amd64 386");
        assert_eq!(accepted("linux/amd64/v3"), "amd64/v3 amd64/v2 amd64 386");
        assert_eq!(accepted("arm"), "arm/v7 arm/v6 arm/v5");
        assert_eq!(accepted("linux/arm/v5"), "arm/v5");
        assert_eq!(accepted("arm64"), "arm64 arm/v8 arm/v7 arm/v6 arm/v5");
        assert_eq!(
            accepted("linux/arm64/v9.1"),
            "arm64/v9.1 arm64/v9 arm64/v8.6 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64 \
             arm/v8 arm/v7 arm/v6 arm/v5"
        );
        assert_eq!(accepted("s390x"), "s390x");
    }

    #[test]
    fn the_best_candidate_wins() {
        let index = [
            Some(Platform::new("unknown", "unknown", None)),
            None,
            Some(Platform::new("linux", "arm", Some("v6"))),
            Some(Platform::new("linux", "arm", Some("v7"))),
            Some(Platform::new("linux", "amd64", Some("v2"))),
            Some(Platform::new("linux", "386", None)),
            Some(Platform { os: "linux".into(), ..Platform::new("linux", "x86_64", None) }),
            Some(Platform::new("linux", "arm64", Some("v8"))),
        ];
        let select = |text: &str| parse(text).select(index.iter().map(Option::as_ref));
        assert_eq!(select("linux/amd64"), Some(6));
        assert_eq!(select("linux/amd64/v4"), Some(4));
        assert_eq!(select("386"), Some(5));
        assert_eq!(select("arm64"), Some(7));
        assert_eq!(select("arm"), Some(3));
        assert_eq!(select("linux/arm/v6"), Some(2));
        assert_eq!(select("linux/arm/v5"), None);
        assert_eq!(select("windows/amd64"), None);
        assert!(!parse("amd64").runs(&Platform::new("linux", "amd64", Some("v2"))));
    }

    #[test]
    fn features_that_are_not_offered_exclude_a_candidate() {
        let plain = Platform::new("linux", "amd64", None);
        let special = Platform { os_features: vec!["erofs".into()], ..plain.clone() };
        assert_eq!(plain.select([Some(&special), Some(&plain)]), Some(1));
        assert_eq!(plain.select([Some(&special)]), None);
        assert_eq!(special.select([Some(&special)]), Some(0));
    }
}
