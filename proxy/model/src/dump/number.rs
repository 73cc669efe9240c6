//! Scalars as proto JSON text: floating point, base64, durations, time stamps.
use std::time::{SystemTime, UNIX_EPOCH};

use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;

/// Standard alphabet, padded.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A JSON number, or the quoted names that proto JSON has for what JSON cannot say. Whole numbers carry no
/// `.0`, as in C++.
pub(super) fn double(value: f64) -> String {
    finite(value, || format!("{value:?}"))
}

/// As [`double`], with the shortest digits that give this `f32` back.
pub(super) fn float(value: f32) -> String {
    finite(f64::from(value), || format!("{value:?}"))
}

fn finite(value: f64, fraction: impl Fn() -> String) -> String {
    if value.is_nan() {
        "\"NaN\"".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 {
            "\"Infinity\"".to_owned()
        } else {
            "\"-Infinity\"".to_owned()
        }
    } else if value.fract() == 0.0 && value.abs() < 1e16 {
        format!("{value:.0}")
    } else {
        fraction()
    }
}

/// `1.500s`: none, three, six or nine digits.
pub(super) fn duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!(
        "{sign}{}{}s",
        seconds.unsigned_abs(),
        fraction(nanos.unsigned_abs())
    )
}

/// RFC 3339 in UTC. Source of the calendar: Howard Hinnant, "chrono-compatible low-level date algorithms".
pub(super) fn timestamp(seconds: i64, nanos: i32) -> String {
    let days = seconds.div_euclid(86_400);
    let second = seconds.rem_euclid(86_400);
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let fraction = fraction(nanos.unsigned_abs());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// As Envoy: milliseconds. Before 1970: 1970.
pub fn system_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = i32::try_from(since.subsec_millis() * 1_000_000).unwrap_or_default();
    timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos)
}

fn fraction(nanos: u32) -> String {
    if nanos == 0 {
        String::new()
    } else if nanos.is_multiple_of(1_000_000) {
        format!(".{:03}", nanos / 1_000_000)
    } else if nanos.is_multiple_of(1_000) {
        format!(".{:06}", nanos / 1_000)
    } else {
        format!(".{nanos:09}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_read_as_in_cpp() {
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-15_001.0, "-15001"),
            (1e15, "1000000000000000"),
            (1e21, "1e21"),
            (f64::NAN, "\"NaN\""),
            (-0.5, "-0.5"),
        ] {
            assert_eq!(double(value), text);
        }
        assert_eq!(float(0.1), "0.1");
        assert_eq!(double(f64::NEG_INFINITY), "\"-Infinity\"");
    }

    #[test]
    fn durations_have_three_six_or_nine_digits() {
        for ((seconds, nanos), text) in [
            ((0, 0), "0s"),
            ((0, 250_000_000), "0.250s"),
            ((1, 1_000), "1.000001s"),
            ((-1, -1), "-1.000000001s"),
            ((i64::MIN, i32::MIN), "-9223372036854775808.2147483648s"),
        ] {
            assert_eq!(duration(seconds, nanos), text);
        }
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        assert_eq!(timestamp(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(1_709_164_800, 961_000_000), "2024-02-29T00:00:00.961Z");
        assert_eq!(timestamp(-1, 0), "1969-12-31T23:59:59Z");
        // Out of range in proto; text all the same.
        assert!(timestamp(i64::MAX, i32::MIN).ends_with('Z'));
    }
}
