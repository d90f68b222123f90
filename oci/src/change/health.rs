//! `HEALTHCHECK`.

use serde_json::{Map, Value};

use super::{Command, command};

/// How to see whether a container is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    /// Fields of the config and their values: nanoseconds, or a count.
    numbers: Vec<(&'static str, i64)>,
    /// `None` switches off the check of the image below.
    command: Option<Command>,
}

/// The options, in the order of the config's fields.
const OPTIONS: [(&str, &str); 5] = [
    ("interval", "Interval"),
    ("timeout", "Timeout"),
    ("start-period", "StartPeriod"),
    ("start-interval", "StartInterval"),
    ("retries", "Retries"),
];

impl Check {
    /// `NONE`, or `[--interval=30s …] CMD command`.
    pub(super) fn parse(mut rest: &str) -> Result<Self, String> {
        let mut numbers = Vec::new();
        while let Some(option) = rest.strip_prefix("--") {
            let (option, behind) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let Some((name, field)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
                return Err(format!("there is no option `--{}`", name.escape_debug()));
            };
            let number = if *name == "retries" {
                value.parse::<u16>().ok().map(i64::from)
            } else {
                // Docker takes nothing below a millisecond, and 0 for its default.
                nanoseconds(value).filter(|time| *time == 0 || *time >= 1_000_000)
            };
            let number =
                number.ok_or_else(|| format!("`{}` is no value for --{name}", value.escape_debug()))?;
            numbers.push((*field, number));
            rest = behind.trim_start();
        }
        let (kind, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let behind = behind.trim_start();
        match (kind.to_ascii_uppercase().as_str(), behind) {
            ("NONE", "") if numbers.is_empty() => Ok(Self { numbers, command: None }),
            ("NONE", _) => Err("NONE stands alone".to_owned()),
            ("CMD", "") => Err("nothing follows its CMD".to_owned()),
            ("CMD", line) => match command(line)? {
                Command::Exec(words) if words.is_empty() => Err("its command is empty".to_owned()),
                command => Ok(Self { numbers, command: Some(command) }),
            },
            _ => Err("it is NONE, or CMD and a command, with options before it".to_owned()),
        }
    }

    /// The object of the config.
    pub(super) fn value(&self) -> Value {
        let test = match &self.command {
            None => vec!["NONE".to_owned()],
            Some(Command::Exec(words)) => {
                std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect()
            }
            Some(Command::Shell(line)) => vec!["CMD-SHELL".to_owned(), line.clone()],
        };
        let mut object = Map::new();
        object.insert("Test".to_owned(), test.into());
        for (_, field) in OPTIONS {
            // Of an option that comes twice the last counts.
            let last = self.numbers.iter().rev().find(|(known, _)| *known == field);
            if let Some((_, number)) = last.filter(|(_, number)| *number != 0) {
                object.insert(field.to_owned(), (*number).into());
            }
        }
        Value::Object(object)
    }
}

/// A duration as Go writes it: `1m30s`, `1.5h`, `100ms`.
fn nanoseconds(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, behind) = rest.split_at(number);
        let unit = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.len() > 12 || part.len() > 9 || whole.len() + part.len() == 0 {
            return None;
        }
        let parsed = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
        let below = i128::pow(10, u32::try_from(part.len()).ok()?);
        total += parsed(whole)? * unit + parsed(part)? * unit / below;
        rest = behind;
    }
    i64::try_from(total).ok().filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("100ms", Some(100_000_000)),
            ("2us1ns", Some(2001)),
            (".5s", Some(500_000_000)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("1d", None),
            ("999999999999h", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn a_check_has_a_command_and_times() {
        let check = |text| Check::parse(text).map(|check| check.value());
        assert_eq!(check("NONE").unwrap(), json!({"Test": ["NONE"]}));
        assert_eq!(check("cmd curl -f  x").unwrap(), json!({"Test": ["CMD-SHELL", "curl -f  x"]}));
        assert_eq!(
            check("--retries=3 --interval=5s --timeout=0 CMD [\"a\", \"b\"]").unwrap(),
            json!({"Test": ["CMD", "a", "b"], "Interval": 5_000_000_000_i64, "Retries": 3})
        );
        for wrong in [
            "",
            "NONE x",
            "--retries=1 NONE",
            "CMD",
            "CMD []",
            "RUN x",
            "--every=1s CMD x",
            "--interval=1us CMD x",
        ] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
