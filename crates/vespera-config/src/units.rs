//! Responsible for durations (`"1h30m"`) and sizes (`"2GiB"`) written as text.
//!
//! The arithmetic is the same, operation by operation, in the Python twin (`_units.py`), so that
//! both give the same float.

/// Longest accepted duration: about 31 years, far below where timers overflow.
pub const MAX_SECONDS: f64 = 1_000_000_000.0;
/// Largest accepted size: what a signed 64-bit offset or resource limit can hold.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// Digits that one number may have: enough for every accepted value, and no overflow in `u128`.
const MAX_DIGITS: usize = 18;

/// Units from long to short; a duration names each at most once, in this order.
const DURATION_UNITS: [(&str, f64); 5] = [
    ("d", 86_400_000.0),
    ("h", 3_600_000.0),
    ("m", 60_000.0),
    ("s", 1_000.0),
    ("ms", 1.0),
];

const SIZE_UNITS: [(&str, u128); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// Seconds in a text such as `90`, `250ms`, `1.5h` or `1h30m`; `None` if it is not a duration.
///
/// The range is not checked here: see [`MAX_SECONDS`].
pub fn parse_duration(text: &str) -> Option<f64> {
    let mut rest = text.trim_matches(' ');
    let mut milliseconds = 0.0;
    let mut units = DURATION_UNITS.as_slice();
    let whole = rest;
    loop {
        let (number, after) = split_number(rest)?;
        let value: f64 = number.parse().ok()?;
        let (unit, after) = split_unit(after);
        if unit.is_empty() {
            // A bare number is seconds, but only alone: "1h30" would be a guess.
            return (number == whole).then_some(value);
        }
        let place = units.iter().position(|(name, _)| *name == unit)?;
        milliseconds += value * units[place].1;
        units = &units[place + 1..];
        rest = after;
        if rest.is_empty() {
            return Some(milliseconds / 1000.0);
        }
    }
}

/// Bytes in a text such as `1024`, `64KiB`, `1.5GiB` or `10MB` (any case; a part of a byte is
/// dropped); `None` if it is not a size. The range is not checked here: see [`MAX_SIZE`].
pub fn parse_size(text: &str) -> Option<u128> {
    let (number, after) = split_number(text.trim_matches(' '))?;
    let (unit, after) = split_unit(after);
    if !after.is_empty() {
        return None;
    }
    let unit = unit.to_ascii_lowercase();
    let factor = match unit.as_str() {
        "" => 1,
        unit => SIZE_UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if unit.is_empty() && !fraction.is_empty() {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    Some(digits * factor / scale)
}

/// A size for people: `512 B`, `1.5 MiB`, `20.0 GiB`.
#[allow(
    clippy::cast_precision_loss,
    reason = "one digit after the point is shown"
)]
pub fn format_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((name, shift)) => format!("{:.1} {name}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

/// `12.5 rest` → (`12.5`, `rest`): ASCII digits with at most one point between them.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    let bad =
        whole.is_empty() || fraction.contains('.') || whole.len() + fraction.len() > MAX_DIGITS;
    (!bad).then_some((number, rest.trim_start_matches(' ')))
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (unit, rest) = text.split_at(end);
    (unit, rest.trim_start_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_seconds() {
        let cases = [
            ("90", 90.0),
            ("0", 0.0),
            ("1.5", 1.5),
            ("250ms", 0.25),
            ("5m", 300.0),
            ("1h30m", 5400.0),
            (" 1h 30m ", 5400.0),
            ("1d2h3m4s5ms", 93_784.005),
            ("0.5h", 1800.0),
        ];
        for (text, seconds) in cases {
            assert_eq!(parse_duration(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in [
            "",
            " ",
            "m",
            "5M",
            "5 minutes",
            "1h30",
            "30m1h",
            "1m1m",
            "-5m",
            "+5m",
            "1e3",
            "1.s",
            ".5s",
            "1..5s",
            "nan",
            "inf",
            "٣m",
            "5m\0",
            "1 0s",
            "9999999999999999999s",
            "1_000",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_read_as_bytes() {
        let cases: [(&str, u128); 9] = [
            ("1024", 1024),
            ("0", 0),
            ("1B", 1),
            ("10MB", 10_000_000),
            ("2GiB", 2 << 30),
            ("2 gib", 2 << 30),
            ("1.5KiB", 1536),
            ("0.0001KB", 0),
            ("999999999999999999TiB", 999_999_999_999_999_999 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "", "GiB", "2G", "2K", "-1B", "1.5", "1e3", "1GiB2MiB", "2GiBs", "0x10", "1,000",
        ] {
            assert_eq!(parse_size(text), None, "{text:?}");
        }
    }
}
