//! What this store accepts of a layer, and how it unpacks: settings by name, for the store or for one operation.

use std::num::NonZeroUsize;

use layerstore_unpack::{Devices, Limits};

use crate::Layerstore;
use crate::error::{Error, Result};

/// How layers are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnpackPolicy {
    /// What is accepted.
    pub limits: Limits,
    /// Whether the threads that unpack are confined to where they write, on kernels that can do it.
    pub sandbox: bool,
    /// How many layers are unpacked at the same time; none says as many as there are processors, eight at most.
    pub jobs: Option<NonZeroUsize>,
}

impl Default for UnpackPolicy {
    fn default() -> Self {
        Self { limits: Limits::default(), sandbox: true, jobs: None }
    }
}

/// One setting of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its value, as it can be set.
    pub value: String,
    /// What it is where nobody sets it.
    pub default: String,
    /// What it means.
    pub meaning: &'static str,
}

/// What kind of value a setting has, and where it is.
#[derive(Clone, Copy)]
enum Field {
    Bytes(fn(&mut UnpackPolicy) -> &mut u64),
    Count(fn(&mut UnpackPolicy) -> &mut u64),
    Length(fn(&mut UnpackPolicy) -> &mut usize),
    Devices,
    Sandbox,
    Jobs,
}

const FIELDS: &[(&str, Field, &str)] = &[
    (
        "output-bytes",
        Field::Bytes(|p| &mut p.limits.output_bytes),
        "bytes of a layer when unpacked, holes included",
    ),
    ("ratio", Field::Count(|p| &mut p.limits.ratio), "bytes for each compressed byte, from ratio-from on"),
    (
        "ratio-from",
        Field::Bytes(|p| &mut p.limits.ratio_from),
        "bytes of a layer that are accepted whatever the ratio",
    ),
    (
        "entries",
        Field::Count(|p| &mut p.limits.entries),
        "files, directories, links and whiteouts of a layer",
    ),
    ("depth", Field::Length(|p| &mut p.limits.depth), "directories on the way to a file"),
    ("path-bytes", Field::Length(|p| &mut p.limits.tar.path), "length of a path"),
    ("link-bytes", Field::Length(|p| &mut p.limits.tar.link), "length of a link's target"),
    ("xattrs", Field::Length(|p| &mut p.limits.tar.xattrs), "extended attributes of a file"),
    ("xattr-bytes", Field::Length(|p| &mut p.limits.tar.xattr_bytes), "their bytes, names and values"),
    ("memory", Field::Bytes(|p| &mut p.limits.memory), "bytes of names kept in memory for a layer"),
    ("devices", Field::Devices, "device nodes: allow or refuse"),
    ("sandbox", Field::Sandbox, "confine the unpacking threads with Landlock: on or off"),
    ("jobs", Field::Jobs, "layers unpacked at the same time: a number, or auto"),
];

impl UnpackPolicy {
    /// Sets one setting by name. Bytes may have a unit (`10G`, `512MiB`: powers of 1024).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a setting or value that there is not.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut policy = layerstore::UnpackPolicy::default();
    /// policy.set("output-bytes", "20G")?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let field = field(name)?;
        let bad = |wanted| Error::BadSetting { name: name.to_owned(), value: value.to_owned(), wanted };
        let count = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0);
        match field {
            Field::Bytes(at) => {
                *at(self) = bytes(value).ok_or_else(|| bad("a number of bytes, such as 10G"))?;
            }
            Field::Count(at) => *at(self) = count(value).ok_or_else(|| bad("a number above 0"))?,
            Field::Length(at) => {
                let number = bytes(value).and_then(|number| usize::try_from(number).ok());
                *at(self) = number.ok_or_else(|| bad("a number"))?;
            }
            Field::Devices => {
                self.limits.devices = match value {
                    "allow" => Devices::Allow,
                    "refuse" => Devices::Refuse,
                    _ => return Err(bad("allow or refuse")),
                }
            }
            Field::Sandbox => {
                self.sandbox = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(bad("on or off")),
                }
            }
            Field::Jobs => {
                self.jobs = match value {
                    "auto" => None,
                    number => Some(number.parse().map_err(|_| bad("a number above 0, or auto"))?),
                }
            }
        }
        Ok(())
    }

    /// All settings.
    pub fn settings(&self) -> Vec<Setting> {
        let (mut own, mut defaults) = (*self, Self::default());
        FIELDS
            .iter()
            .map(|(name, field, meaning)| Setting {
                name,
                value: field.get(&mut own),
                default: field.get(&mut defaults),
                meaning,
            })
            .collect()
    }
}

impl Field {
    fn get(self, policy: &mut UnpackPolicy) -> String {
        match self {
            Self::Bytes(at) => with_unit(*at(policy)),
            Self::Count(at) => at(policy).to_string(),
            Self::Length(at) => at(policy).to_string(),
            Self::Devices => match policy.limits.devices {
                Devices::Allow => "allow",
                Devices::Refuse => "refuse",
            }
            .to_owned(),
            Self::Sandbox => if policy.sandbox { "on" } else { "off" }.to_owned(),
            Self::Jobs => policy.jobs.map_or_else(|| "auto".to_owned(), |jobs| jobs.to_string()),
        }
    }
}

fn field(name: &str) -> Result<Field> {
    FIELDS.iter().find(|(known, ..)| *known == name).map(|(_, field, _)| *field).ok_or_else(|| {
        Error::NoSetting { name: name.to_owned(), known: FIELDS.iter().map(|(known, ..)| *known).collect() }
    })
}

const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];

/// A number with or without a unit: `10`, `10k`, `10KB`, `10KiB` are powers of 1024, as for `docker run --memory`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.to_ascii_uppercase();
    let unit = unit.strip_suffix('B').map_or(&*unit, |unit| unit.strip_suffix('I').unwrap_or(unit));
    let mut letters = unit.chars();
    let power = match (letters.next(), letters.next()) {
        (None, _) => 0,
        (Some(letter), None) => 10 * (UNITS.iter().position(|unit| *unit == letter)? + 1),
        _ => return None,
    };
    number.checked_mul(1 << power)
}

/// The shortest form that [`bytes`] reads back.
fn with_unit(bytes: u64) -> String {
    let mut power = 0;
    while bytes != 0 && power < UNITS.len() && bytes.is_multiple_of(1 << (10 * (power + 1))) {
        power += 1;
    }
    match power.checked_sub(1).and_then(|unit| UNITS.get(unit)) {
        Some(unit) => format!("{}{unit}", bytes >> (10 * power)),
        None => bytes.to_string(),
    }
}

/// What the keys of the store's settings begin with.
const PREFIX: &str = "unpack.";

impl Layerstore {
    /// How this store unpacks: its settings, and the defaults for what is not set.
    ///
    /// # Errors
    ///
    /// Only those of the store itself.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// println!("{:?}", store.unpack_policy()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn unpack_policy(&self) -> Result<UnpackPolicy> {
        let mut policy = UnpackPolicy::default();
        for (name, value) in self.store.settings(PREFIX)? {
            match field(&name) {
                Ok(_) => policy.set(&name, &value)?,
                Err(_) => {
                    tracing::warn!(name, value, "a setting that this program does not know has no effect");
                }
            }
        }
        Ok(policy)
    }

    /// Changes the store's settings; no value, or `default`, takes one back. All are changed or none is.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a setting or value that there is not; then nothing is changed.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = layerstore::Layerstore::open("/var/lib/layerstore".as_ref())?;
    /// store.set_unpack_policy(&[("devices", Some("refuse"))])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_unpack_policy(&self, changes: &[(&str, Option<&str>)]) -> Result<UnpackPolicy> {
        let mut checked = UnpackPolicy::default();
        let mut settings = Vec::with_capacity(changes.len());
        let present = self.store.settings(PREFIX)?;
        for (name, value) in changes {
            match value.filter(|value| *value != "default") {
                Some(value) => checked.set(name, value)?,
                // One of another version can be taken back as well.
                None if present.iter().any(|(known, _)| known == name) => {}
                None => drop(field(name)?),
            }
            settings.push((*name, value.filter(|value| *value != "default").map(str::to_owned)));
        }
        self.store.set_settings(PREFIX, &settings)?;
        self.unpack_policy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_can_be_set_to_what_it_shows() {
        let mut policy = UnpackPolicy::default();
        for setting in policy.settings() {
            assert_eq!(setting.value, setting.default, "{}", setting.name);
            policy.set(setting.name, &setting.value).unwrap();
        }
        assert_eq!(policy, UnpackPolicy::default());
        for (name, value) in [
            ("output-bytes", "10G"),
            ("ratio", "7"),
            ("entries", "1000"),
            ("depth", "16"),
            ("devices", "refuse"),
            ("sandbox", "off"),
            ("jobs", "3"),
        ] {
            policy.set(name, value).unwrap();
            let shown = policy.settings().into_iter().find(|setting| setting.name == name).unwrap();
            assert_eq!(shown.value, value, "{name}");
        }
        assert_eq!(policy.limits.output_bytes, 10 << 30);
    }

    #[test]
    fn bytes_have_units() {
        for (text, number) in [
            ("0", Some(0)),
            ("1023", Some(1023)),
            ("1k", Some(1024)),
            ("2KB", Some(2048)),
            ("2KiB", Some(2048)),
            ("3g", Some(3 << 30)),
            ("16E", None),
            ("", None),
            ("G", None),
            ("-1", None),
            ("1.5G", None),
            ("1X", None),
            ("1GG", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(bytes(text), number, "{text}");
        }
        for number in [0, 1, 1023, 1024, 1025, 3 << 20, 1 << 40, u64::MAX] {
            assert_eq!(bytes(&with_unit(number)), Some(number));
        }
    }

    #[test]
    fn what_is_no_setting_is_refused() {
        let mut policy = UnpackPolicy::default();
        assert!(matches!(policy.set("colour", "red"), Err(Error::NoSetting { .. })));
        for (name, value) in
            [("entries", "0"), ("entries", "many"), ("devices", "some"), ("sandbox", ""), ("jobs", "0")]
        {
            assert!(matches!(policy.set(name, value), Err(Error::BadSetting { .. })), "{name}={value}");
        }
    }
}
