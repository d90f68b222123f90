//! Sizes, spans of time and percentages as people write them.

/// Bytes: a number with a unit of powers of 1000 (`10GB`, `1.5G`) as in Docker's lists, or of 1024 (`10GiB`).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    const UNITS: &str = "kmgtp";
    let wrong =
        || format!("`{text}` is not a size: expected a number of bytes, or one such as 20GB or 20GiB");
    let (number, unit) = number_and_unit(text.trim()).ok_or_else(wrong)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let (unit, base) = match unit.strip_suffix("ib") {
        Some(unit) => (unit, 1024_f64),
        None => (unit.strip_suffix('b').unwrap_or(&unit), 1000_f64),
    };
    let power = match unit {
        "" if base > 1000.0 => return Err(wrong()),
        "" => 0,
        unit => 1 + UNITS.find(unit).filter(|_| unit.len() == 1).ok_or_else(wrong)?,
    };
    if let (Ok(whole), Ok(power)) = (number.parse::<u64>(), u32::try_from(power)) {
        let factor = if base > 1000.0 { 1024_u64.pow(power) } else { 1000_u64.pow(power) };
        return whole.checked_mul(factor).ok_or_else(|| format!("`{text}` is out of range"));
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * base.powi(i32::try_from(power).unwrap_or(i32::MAX));
    // 2^63, beyond which there is no disk either.
    if !(0.0..9.2e18).contains(&bytes) {
        return Err(format!("`{text}` is out of range"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in range, and fractions of a byte do not count"
    )]
    Ok(bytes as u64)
}

/// Seconds: `30d`, `2w`, `12h`, and several in a row (`1h30m`).
pub(crate) fn span(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is not a span of time: expected one such as 30d, 2w, 12h or 1h30m");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let (number, tail) = number_and_unit(rest).ok_or_else(wrong)?;
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let seconds = match &tail[..end] {
            "w" => 604_800.0,
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            _ => return Err(wrong()),
        };
        sum += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = &tail[end..];
    }
    // A thousand years.
    if sum > 3.2e10 {
        return Err(format!("`{text}` is out of range"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "in range, and fractions of a second do not count")]
    Ok(sum as i64)
}

/// `85%`, or `85`.
pub(crate) fn percent(text: &str) -> Result<u8, String> {
    let digits = text.trim().strip_suffix('%').unwrap_or(text.trim()).trim_end();
    let number = digits.parse::<u8>().ok().filter(|number| *number <= 100);
    number.ok_or_else(|| format!("`{text}` is not a percentage: expected one such as 85%"))
}

/// Digits, with one point at most, and what follows.
fn number_and_unit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let points = number.bytes().filter(|byte| *byte == b'.').count();
    (number.starts_with(|c: char| c.is_ascii_digit()) && points <= 1).then_some((number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_thousands_or_of_1024() {
        let cases = [
            ("0", 0),
            ("123", 123),
            ("123B", 123),
            ("1k", 1000),
            ("10GB", 10_000_000_000),
            ("10gb", 10_000_000_000),
            ("10 GB", 10_000_000_000),
            ("10G", 10_000_000_000),
            ("10GiB", 10 << 30),
            ("1.5MB", 1_500_000),
            ("0.5KiB", 512),
            ("2TB", 2_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "GB", "-1", "1X", "1iB", "10GGB", "1.2.3k", "20000PB", "99999999999999999999", "1,5G", "10%"]
        {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_gos_with_days_and_weeks() {
        let cases = [
            ("30d", 2_592_000),
            ("2w", 1_209_600),
            ("12h", 43_200),
            ("90m", 5400),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("1d12h", 129_600),
            ("10s", 10),
            ("0s", 0),
        ];
        for (text, seconds) in cases {
            assert_eq!(span(text), Ok(seconds), "{text}");
        }
        for text in ["", "30", "d", "-1h", "1y", "1h30", "1 h", "99999999999d", "1.1.1h"] {
            assert!(span(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_end_at_100() {
        assert_eq!((percent("85%"), percent("0"), percent("100 %")), (Ok(85), Ok(0), Ok(100)));
        for text in ["", "%", "101%", "-1%", "8.5%", "85%%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
