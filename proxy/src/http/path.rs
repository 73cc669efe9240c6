//! Path normalisation. Source: RFC 3986 §6.2.2 as Envoy's `PathUtil::canonicalPath` does it (`normalize_path`, `merge_slashes`).
use std::borrow::Cow;

use http::uri::PathAndQuery;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("path cannot be normalised")]
pub(super) struct InvalidPath;

/// Resolves `.` and `..`, decodes percent-encoded unreserved characters, merges slashes when asked. The query stays as it is.
///
/// # Errors
/// The path does not begin with `/` (but `*` passes), or has a NUL in it, and dots are to be resolved.
pub(super) fn normalize(
    path: &PathAndQuery,
    dots: bool,
    slashes: bool,
) -> Result<Option<PathAndQuery>, InvalidPath> {
    let original = path.path();
    if original == "*" || !(dots || slashes) {
        return Ok(None);
    }
    if !original.starts_with('/') {
        return Err(InvalidPath);
    }
    if dots && original.contains("%00") {
        return Err(InvalidPath);
    }
    let mut changed = Cow::Borrowed(original);
    if dots && needs_dots(original) {
        changed = Cow::Owned(remove_dots(&decode_unreserved(&changed)));
    }
    if slashes && changed.contains("//") {
        changed = Cow::Owned(merge_slashes(&changed));
    }
    if changed == original {
        return Ok(None);
    }
    let whole = match path.query() {
        Some(query) => format!("{changed}?{query}"),
        None => changed.into_owned(),
    };
    whole.parse().map(Some).map_err(|_| InvalidPath)
}

/// `%2F` becomes `/`, `%5C` a backslash; the query stays as it is. `None`: there is none of them.
pub(super) fn unescape_slashes(path: &PathAndQuery) -> Option<String> {
    let original = path.path();
    if !original.contains('%') {
        return None;
    }
    let mut unescaped = String::with_capacity(original.len());
    let mut rest = original;
    while let Some((before, after)) = rest.split_once('%') {
        unescaped.push_str(before);
        let (letter, skipped) = match after.get(..2) {
            Some("2F" | "2f") => ('/', 2),
            Some("5C" | "5c") => ('\\', 2),
            _ => ('%', 0),
        };
        unescaped.push(letter);
        rest = after.get(skipped..).unwrap_or_default();
    }
    unescaped.push_str(rest);
    if unescaped == original {
        return None;
    }
    if let Some(query) = path.query() {
        unescaped.push('?');
        unescaped.push_str(query);
    }
    Some(unescaped)
}

fn needs_dots(path: &str) -> bool {
    path.contains("/.") || path.contains('%') || path.contains('\\')
}

/// `%41` becomes `A`, `%2e` a dot; reserved characters keep their encoding as it is written. A backslash is a slash, as in Envoy.
fn decode_unreserved(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut decoded = String::with_capacity(path.len());
    let mut index = 0;
    while let Some(&byte) = bytes.get(index) {
        let hex = (byte == b'%')
            .then(|| bytes.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match hex {
            Some(code) if code.is_ascii_alphanumeric() || b"-._~".contains(&code) => {
                decoded.push(char::from(code));
                index += 3;
            }
            _ => {
                decoded.push(if byte == b'\\' { '/' } else { char::from(byte) });
                index += 1;
            }
        }
    }
    decoded
}

fn remove_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let last = segments.len().saturating_sub(1);
    for (index, segment) in segments.iter().enumerate() {
        match *segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            other => {
                kept.push(other);
                continue;
            }
        }
        if index == last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if !(character == '/' && merged.ends_with('/')) {
            merged.push(character);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, slashes: bool, expected: &str) {
        let parsed: PathAndQuery = path.parse().expect("a path");
        let normal = normalize(&parsed, true, slashes)
            .expect("valid")
            .unwrap_or(parsed);
        assert_eq!(normal.as_str(), expected, "{path}");
    }

    #[test]
    fn dots_are_resolved_and_the_query_is_left_alone() {
        check("/a/./b/../c?x=/../y", false, "/a/c?x=/../y");
        check("/../../a", false, "/a");
        check("/a/..", false, "/");
        check("/a/.", false, "/a/");
        check("/%2e%2e/a", false, "/a");
        check("/a%2fb", false, "/a%2fb");
        check("/a//b", false, "/a//b");
    }

    #[test]
    fn escaped_slashes_are_found_in_the_path_only() {
        let check = |path: &str, expected: Option<&str>| {
            let parsed: PathAndQuery = path.parse().expect("a path");
            assert_eq!(unescape_slashes(&parsed).as_deref(), expected, "{path}");
        };
        check("/a%2Fb%2fc", Some("/a/b/c"));
        check("/a%5Cb%5c", Some("/a\\b\\"));
        check("/a%2", None);
        check("/%41?x=%2F", None);
        check("/a%252F%2F?x=%2F", Some("/a%252F/?x=%2F"));
    }

    #[test]
    fn slashes_are_merged_when_asked() {
        check("//a///b", true, "/a/b");
    }
}
