//! RE2's language in that of the crate `regex`, which differs in one thing: RE2's Perl classes know ASCII only.
//!
//! Beside being what Envoy does, it is a tenth of the memory: there are some hundred digits in Unicode, and many more letters.
//! Source: <https://github.com/google/re2/wiki/Syntax>, "Perl character classes (all ASCII-only)".

/// `pattern`, an expression of RE2, as one for the crate.
pub fn re2(pattern: &str) -> String {
    translated(pattern, |class| match class {
        // The crate has no such `\B` for text, so that one stays.
        'b' => Some(r"(?-u:\b)"),
        class => ascii_class(class),
    })
}

/// The classes alone, for an engine that takes no flags within an expression.
pub fn ascii_classes(pattern: &str) -> String {
    translated(pattern, ascii_class)
}

fn ascii_class(class: char) -> Option<&'static str> {
    match class {
        'd' => Some("[0-9]"),
        'D' => Some("[^0-9]"),
        's' => Some(r"[\t\n\f\r ]"),
        'S' => Some(r"[^\t\n\f\r ]"),
        'w' => Some("[0-9A-Za-z_]"),
        'W' => Some("[^0-9A-Za-z_]"),
        _ => None,
    }
}

/// With the escapes that `instead` knows replaced. A class within a class is one too, in the crate.
fn translated(pattern: &str, instead: impl Fn(char) -> Option<&'static str>) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut rest = pattern.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        let Some(escaped) = rest.next() else {
            text.push(c);
            break;
        };
        match instead(escaped) {
            Some(class) => text.push_str(class),
            None => text.extend([c, escaped]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let regex = regex::Regex::new(&format!(r"\A(?:{})\z", re2(pattern))).expect("valid");
        for text in matching {
            assert!(regex.is_match(text), "{pattern} and {text}");
        }
        for text in others {
            assert!(!regex.is_match(text), "{pattern} and {text}");
        }
    }

    #[test]
    fn perl_classes_know_ascii_only() {
        check(r"\d+", &["09"], &["\u{663}", "a"]);
        check(r"\D", &["a", "\u{663}"], &["1"]);
        check(r"\w+", &["aZ_9"], &["\u{e4}", "-"]);
        check(r"\W", &["\u{e4}", "-"], &["a"]);
        check(r"a\sb", &["a b", "a\tb"], &["a\u{a0}b", "a\u{b}b"]);
        check(r"a\Sb", &["a\u{a0}b", "axb"], &["a b"]);
        check(r"\bx\b.*", &["x", "x\u{e4}", "x y"], &["xy"]);
    }

    #[test]
    fn classes_stand_within_classes() {
        check(r"[\d.]+", &["1.2"], &["a", "\u{663}"]);
        check(r"[^\d]", &["a", "\u{663}"], &["1"]);
        check(r"[\Da1]", &["a", "1", "b"], &["2"]);
        check(r"[^\W_]", &["a", "9"], &["_", "-"]);
    }

    #[test]
    fn what_is_escaped_otherwise_stays() {
        for pattern in [r"\\d", r"\.\x64", r"a\", r"\pL", r"[\]\\d]"] {
            assert_eq!(re2(pattern), pattern);
        }
    }
}
