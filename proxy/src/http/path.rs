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
/// The path does not begin with `/` (but `*` passes).
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

fn needs_dots(path: &str) -> bool {
    path.contains("/.") || path.contains('%') || path.contains('\\')
}

/// `%41` becomes `A`, `%2e` a dot; reserved characters keep their encoding, in upper case. A backslash is a slash, as in Envoy.
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
            Some(code) => {
                decoded.push_str(&format!("%{code:02X}"));
                index += 3;
            }
            None => {
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
        check("/a%2fb", false, "/a%2Fb");
        check("/a//b", false, "/a//b");
    }

    #[test]
    fn slashes_are_merged_when_asked() {
        check("//a///b", true, "/a/b");
    }
}
