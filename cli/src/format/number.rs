//! Floating point as Go prints it, and sizes as Docker prints them.

/// Go's `%g` with the shortest digits that give the number back.
pub(crate) fn shortest(value: f64) -> String {
    general(value, None)
}

/// Go's `%.Ng`: `precision` significant digits without trailing zeros, or the shortest form that
/// reads back as the same number; exponents from -4 up to the precision (6 for the shortest) are
/// written out.
pub(crate) fn general(value: f64, precision: Option<usize>) -> String {
    if !value.is_finite() {
        return special(value);
    }
    let precision = precision.map(|p| p.max(1));
    let scientific = match precision {
        Some(p) => format!("{value:.*e}", p - 1),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = split_exponent(&scientific);
    if exponent < -4 || exponent >= precision.map_or(6, |p| i32::try_from(p).unwrap_or(i32::MAX)) {
        return with_exponent(trim_zeros(mantissa), exponent);
    }
    let digits = i32::try_from(mantissa.bytes().filter(u8::is_ascii_digit).count()).unwrap_or(0);
    let decimals = usize::try_from(digits - 1 - exponent).unwrap_or(0);
    trim_zeros(&format!("{value:.decimals$}")).to_owned()
}

/// Go's `%.Ne`: at least two digits of exponent.
pub(crate) fn exponential(value: f64, precision: usize) -> String {
    if !value.is_finite() {
        return special(value);
    }
    let scientific = format!("{value:.precision$e}");
    let (mantissa, exponent) = split_exponent(&scientific);
    with_exponent(mantissa, exponent)
}

/// Go's `%.Nf`.
pub(crate) fn fixed(value: f64, precision: usize) -> String {
    if value.is_finite() { format!("{value:.precision$}") } else { special(value) }
}

fn special(value: f64) -> String {
    let text = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    };
    text.to_owned()
}

fn split_exponent(scientific: &str) -> (&str, i32) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    (mantissa, exponent.parse().unwrap_or(0))
}

fn with_exponent(mantissa: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

fn trim_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

/// A size with three significant digits and a decimal unit, as in Docker's lists:
/// go-units' `HumanSizeWithPrecision(size, 3)`, `1e+03kB` included.
pub(crate) fn human_size(bytes: u64) -> String {
    sized(bytes, 3)
}

/// As [`human_size`], but with four digits: go-units' `HumanSize`, which Docker uses in `SharedSize`,
/// `UniqueSize` and while it loads.
pub(crate) fn human_size4(bytes: u64) -> String {
    sized(bytes, 4)
}

fn sized(bytes: u64, precision: usize) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[expect(clippy::cast_precision_loss, reason = "at most four digits are printed")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{}{}", general(size, Some(precision)), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_go() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.5, "0.5"),
            (100_000.0, "100000"),
            (123_456.7, "123456.7"),
            (1e6, "1e+06"),
            (12_345_678.9, "1.23456789e+07"),
            (100_000_000.5, "1.000000005e+08"),
            (1e21, "1e+21"),
            (1e100, "1e+100"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, expected) in cases {
            assert_eq!(shortest(value), expected);
        }
        assert_eq!(general(1234.5, Some(3)), "1.23e+03");
        assert_eq!(general(0.000_123_456, Some(3)), "0.000123");
        assert_eq!(exponential(1234.5, 6), "1.234500e+03");
        assert_eq!(exponential(1e-10, 0), "1e-10");
        assert_eq!(fixed(-2.345_6, 2), "-2.35");
    }

    /// What `docker images` 28.2.2 prints for these sizes.
    #[test]
    fn sizes_print_as_in_docker() {
        let cases = [
            (0, "0B"),
            (1, "1B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (9999, "10kB"),
            (99_950, "100kB"),
            (999_499, "999kB"),
            (999_500, "1e+03kB"),
            (999_999, "1e+03kB"),
            (1_000_000, "1MB"),
            (187_000_000, "187MB"),
            (187_450_000, "187MB"),
            (1_234_567_890, "1.23GB"),
            (12_345_678_901_234, "12.3TB"),
            (u64::MAX, "18.4EB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(human_size(bytes), expected);
        }
        assert_eq!(human_size4(34_125_678), "34.13MB");
    }
}
