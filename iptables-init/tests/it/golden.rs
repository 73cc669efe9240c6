//! The text of `--dry-run` for many flag sets.

use iptables_init::dry_run;

use crate::cases;

#[test]
fn rules_and_their_text_are_istios_for_every_case() {
    let cases = cases::all();
    assert!(cases.len() >= 60, "{} cases in tests/golden", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .map(|case| (case, dry_run::text(&case.config())))
        .filter(|(case, text)| *text != case.text)
        .map(|(case, text)| format!("{}:\n{}", case.name, difference(&case.text, &text)))
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// The first lines that differ.
fn difference(expected: &str, found: &str) -> String {
    let mut expected = expected.lines();
    let mut found = found.lines();
    loop {
        let pair = (expected.next(), found.next());
        if pair.0 != pair.1 {
            let show = |line: Option<&str>| line.unwrap_or("(end)").to_owned();
            return format!("  expected {}\n  found    {}", show(pair.0), show(pair.1));
        }
        if pair.0.is_none() {
            return "  only the ends of lines differ".to_owned();
        }
    }
}
