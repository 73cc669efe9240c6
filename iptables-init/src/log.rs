//! Log lines on standard error, as text or JSON.
//!
//! Standard output stays free for `--dry-run`. The line formats are those of Istio's logger
//! (`time<TAB>level<TAB>message`; JSON with `level`, `time`, `msg`).

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much is logged, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Error,
    Warn,
    Info,
    Debug,
}

impl Level {
    /// Reads Istio's level names; `fatal` is what this program calls `none`: it has no fatal lines.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "none" | "fatal" => Level::None,
            "error" => Level::Error,
            "warn" => Level::Warn,
            "info" => Level::Info,
            "debug" => Level::Debug,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Level::None => "none",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

/// Where log lines go: standard error, up to `level`.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    pub level: Level,
    pub json: bool,
}

impl Log {
    /// Something that stops the program. Shown at every level: an exit code alone explains nothing.
    pub fn error(&self, message: &str) {
        self.write(Level::Error, message);
    }

    /// Something to look at although the program goes on.
    pub fn warn(&self, message: &str) {
        self.at(Level::Warn, message);
    }

    /// What the program did.
    pub fn info(&self, message: &str) {
        self.at(Level::Info, message);
    }

    /// How it decided.
    pub fn debug(&self, message: &str) {
        self.at(Level::Debug, message);
    }

    fn at(&self, level: Level, message: &str) {
        if level <= self.level {
            self.write(level, message);
        }
    }

    fn write(&self, level: Level, message: &str) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = line(self.json, level, since_epoch, message);
        // Nobody is left to hear that standard error is closed.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn line(json: bool, level: Level, since_epoch: Duration, message: &str) -> String {
    let time = rfc3339(since_epoch);
    let level = level.name();
    if json {
        format!(
            "{{\"level\":\"{level}\",\"time\":\"{time}\",\"msg\":\"{}\"}}\n",
            escape(message)
        )
    } else {
        format!("{time}\t{level}\t{message}\n")
    }
}

pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// UTC with microseconds, as RFC 3339 section 5.6.
fn rfc3339(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(seconds / 86_400);
    let micros = since_epoch.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Gregorian date of the `days`-th day after 1970-01-01.
///
/// Counts in eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: bool, seconds: u64, message: &str, expected: &str) {
        assert_eq!(
            line(json, Level::Info, Duration::from_secs(seconds), message),
            expected
        );
    }

    #[test]
    fn writes_text_and_json_lines() {
        check(false, 0, "hello", "1970-01-01T00:00:00.000000Z\tinfo\thello\n");
        check(
            false,
            951_827_696,
            "leap",
            "2000-02-29T12:34:56.000000Z\tinfo\tleap\n",
        );
        check(
            false,
            4_107_542_400,
            "no leap",
            "2100-03-01T00:00:00.000000Z\tinfo\tno leap\n",
        );
        check(
            true,
            1_767_225_599,
            "say \"a\\b\"\n\u{1}",
            "{\"level\":\"info\",\"time\":\"2025-12-31T23:59:59.000000Z\",\"msg\":\"say \\\"a\\\\b\\\"\\n\\u0001\"}\n",
        );
    }
}
