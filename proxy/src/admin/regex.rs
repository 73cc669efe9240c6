//! Filters that people type.
use regex::Regex;

use super::answer::Answer;

/// The expression, or the 400 that says what is wrong with it. Searched for anywhere in a name, as Envoy's filters are.
pub(super) fn parse(pattern: Option<&str>) -> Result<Option<Regex>, Answer> {
    pattern.map(Regex::new).transpose().map_err(|error| {
        let reason = reason(&error);
        Answer::bad_request(format!(
            "Invalid re2 regex: {reason}: {}",
            pattern.unwrap_or_default()
        ))
    })
}

/// One line: the library draws the expression with an arrow below, and ends with the reason.
fn reason(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().next_back().unwrap_or_default();
    last.trim().trim_start_matches("error: ").to_owned()
}
