//! Words and numbers for people, in a given width.

use std::time::Duration;

/// `1.25 ms`, three digits or so.
pub(super) fn latency(latency: Option<Duration>) -> String {
    let Some(latency) = latency else {
        return "-".to_owned();
    };
    let millis = latency.as_secs_f64() * 1000.0;
    let digits = if millis < 10.0 {
        2
    } else {
        usize::from(millis < 100.0)
    };
    format!("{millis:.digits$} ms")
}

/// `90.1 %`.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"))
}

/// No longer than so many characters; what is cut ends in a dot leader.
pub(super) fn clip(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars()
        .take(columns.saturating_sub(1))
        .chain(['…'])
        .collect()
}

/// Lines of at most so many characters, broken at spaces; lines after the first begin with `indent` spaces. A word that is
/// longer than a line has one of its own: a path that can be copied is worth more than a margin.
pub(super) fn wrap(text: &str, columns: usize, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > columns {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            used = indent;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += length;
    }
    wrapped.push('\n');
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let check = |micros: u64, expected: &str| {
            assert_eq!(latency(Some(Duration::from_micros(micros))), expected);
        };
        check(1234, "1.23 ms");
        check(12_345, "12.3 ms");
        check(123_456, "123 ms");
        assert_eq!(latency(None), "-");
        assert_eq!(percent(Some(90.04)), "90.0 %");
    }

    #[test]
    fn text_stays_within_its_columns() {
        assert_eq!(clip("abcdef", 4), "abc…");
        assert_eq!(clip("abcd", 4), "abcd");
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three\n");
        assert_eq!(wrap("a averyverylongword b", 6, 1), "a\n averyverylongword\n b\n");
    }
}
