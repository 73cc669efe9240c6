//! For people: each finding with the line it is about, equal ones once, and one line at the end.
use std::collections::HashMap;
use std::fmt::Write as _;

use outrigger_model::validate::{Finding, Input, Kind, Place, Rule, Severity};

use super::Outcome;

/// Characters of a source line that are shown: generated JSON is often one line.
const EXCERPT: usize = 100;

/// The report.
pub(super) fn render(outcome: &Outcome) -> String {
    let mut text = String::new();
    for (name, reason) in &outcome.unread {
        // Writing into a String cannot fail.
        let _ = write!(text, "error[unreadable]: {reason}\n --> {name}\n\n");
    }
    let findings = grouped(&outcome.report.findings);
    for (finding, more) in &findings {
        if let Some(input) = outcome.inputs.get(finding.file) {
            one(&mut text, finding, *more, input);
        }
    }
    text.push_str(&summary(outcome));
    text
}

/// Findings that differ in resource and index only are one, with how many follow it: a mesh repeats itself a thousand times.
fn grouped(findings: &[Finding]) -> Vec<(&Finding, usize)> {
    let mut groups: Vec<(&Finding, usize)> = Vec::new();
    let mut position: HashMap<(usize, &str, String), usize> = HashMap::new();
    for finding in findings {
        if finding.rule != Rule::Unsupported {
            groups.push((finding, 0));
            continue;
        }
        let shape: String = finding
            .path
            .chars()
            .filter(|letter| !letter.is_ascii_digit())
            .collect();
        let index = *position
            .entry((finding.file, finding.reason.as_str(), shape))
            .or_insert(groups.len());
        match groups.get_mut(index) {
            Some((_, more)) => *more += 1,
            None => groups.push((finding, 0)),
        }
    }
    groups
}

fn one(text: &mut String, finding: &Finding, more: usize, input: &Input) {
    let Finding {
        rule,
        severity,
        place,
        resource,
        path,
        reason,
        did_you_mean,
        file: _,
    } = finding;
    let _ = writeln!(text, "{}[{}]: {reason}", severity.name(), rule.name());
    let margin = match place {
        Some(Place { line, column }) => {
            let margin = line.to_string().len();
            let _ = writeln!(text, "{:margin$}--> {}:{line}:{column}", "", input.name);
            excerpt(
                text,
                input,
                Place {
                    line: *line,
                    column: *column,
                },
                margin,
            );
            margin
        }
        None => {
            let _ = writeln!(text, " --> {}", input.name);
            1
        }
    };
    let whole = match (resource.is_empty(), path.is_empty()) {
        (true, true) => String::new(),
        (true, false) => path.clone(),
        (false, true) => resource.clone(),
        (false, false) => format!("{resource}: {path}"),
    };
    if !whole.is_empty() {
        let _ = writeln!(text, "{:margin$} = in {whole}", "");
    }
    if more > 0 {
        let _ = writeln!(text, "{:margin$} = and {more} more like this", "");
    }
    if let Some(name) = did_you_mean {
        let _ = writeln!(text, "{:margin$} = help: did you mean `{name}`?", "");
    }
    text.push('\n');
}

/// The line with a mark under the word.
fn excerpt(text: &mut String, input: &Input, place: Place, margin: usize) {
    let line = String::from_utf8_lossy(
        input
            .bytes
            .split(|byte| *byte == b'\n')
            .nth(place.line - 1)
            .unwrap_or_default(),
    )
    .into_owned();
    let line: Vec<char> = line.trim_start_matches('\u{feff}').trim_end().chars().collect();
    let at = place.column - 1;
    if line.is_empty() || at > line.len() {
        return;
    }
    let word = word(line.get(at..).unwrap_or_default());
    // Of a long line, the surroundings.
    let from = if line.len() <= EXCERPT {
        0
    } else {
        at.saturating_sub(EXCERPT / 3)
    };
    let shown: String = line
        .iter()
        .skip(from)
        .take(EXCERPT)
        .map(|letter| if *letter == '\t' { ' ' } else { *letter })
        .collect();
    let before = if from > 0 { "…" } else { "" };
    let after = if from + EXCERPT < line.len() { "…" } else { "" };
    let indent = at - from + before.chars().count();
    let marks = "^".repeat(word.clamp(1, EXCERPT));
    let _ = writeln!(text, "{:margin$} |", "");
    let _ = writeln!(text, "{} | {before}{shown}{after}", place.line);
    let _ = writeln!(text, "{:margin$} | {:indent$}{marks}", "", "");
}

/// Letters of the name or value that begins here.
fn word(rest: &[char]) -> usize {
    match rest.first() {
        Some(quote @ ('"' | '\'')) => {
            let end = rest.iter().skip(1).position(|letter| letter == quote);
            end.map_or(rest.len(), |end| end + 2)
        }
        Some('{' | '[') => 1,
        _ => {
            let ends = |(index, letter): (usize, &char)| match letter {
                ',' | '}' | ']' => true,
                ':' => rest.get(index + 1).is_none_or(|next| next.is_whitespace()),
                // A plain scalar of YAML has spaces in it, up to a comment.
                '#' => index > 0 && rest.get(index - 1).is_some_and(|before| before.is_whitespace()),
                _ => false,
            };
            let end = rest.iter().enumerate().position(ends).unwrap_or(rest.len());
            let word = rest.get(..end).unwrap_or_default();
            word.iter()
                .rposition(|letter| !letter.is_whitespace())
                .map_or(0, |last| last + 1)
        }
    }
}

fn summary(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let (errors, warnings) = (
        report.count(Severity::Error) + outcome.unread.len(),
        report.count(Severity::Warning),
    );
    let verdict = if errors > 0 {
        format!(
            "invalid: {}, {}",
            plural(errors, "error"),
            plural(warnings, "warning")
        )
    } else if warnings > 0 {
        format!("valid, with {}", plural(warnings, "warning"))
    } else {
        "valid".to_owned()
    };
    let found: Vec<_> = report
        .resources
        .iter()
        .map(|(kind, count)| of_kind(*kind, *count))
        .collect();
    let files = plural(outcome.inputs.len() + outcome.unread.len(), "file");
    if found.is_empty() {
        format!("{verdict} ({files})\n")
    } else {
        format!("{verdict} ({files}: {})\n", found.join(", "))
    }
}

fn of_kind(kind: Kind, count: usize) -> String {
    plural(count, kind.name())
}

fn plural(count: usize, word: &str) -> String {
    match count {
        1 => format!("1 {word}"),
        count => format!("{count} {word}s"),
    }
}
