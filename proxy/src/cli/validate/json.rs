//! For programs: one object; `docs/validate.md` says what its members mean.
use outrigger_model::validate::{Finding, Severity};
use serde_json::{Map, Value, json};

use super::Outcome;

/// The report.
pub(super) fn render(outcome: &Outcome) -> String {
    let report = &outcome.report;
    let mut findings: Vec<Value> = outcome
        .unread
        .iter()
        .map(|(name, reason)| json!({"severity": "error", "rule": "unreadable", "message": reason, "file": name}))
        .collect();
    findings.extend(report.findings.iter().map(|found| finding(outcome, found)));
    let resources: Map<String, Value> = report
        .resources
        .iter()
        .map(|(kind, count)| (kind.name().replace(' ', "_"), (*count).into()))
        .collect();
    let whole = json!({
        "version": 1,
        "valid": outcome.status() == 0,
        "errors": report.count(Severity::Error) + outcome.unread.len(),
        "warnings": report.count(Severity::Warning),
        "notes": report.count(Severity::Note),
        "resources": resources,
        "findings": findings,
    });
    format!("{whole:#}\n")
}

fn finding(outcome: &Outcome, finding: &Finding) -> Value {
    let file = outcome.inputs.get(finding.file).map(|input| input.name.as_str());
    let mut members = Map::new();
    let mut add = |name: &str, value: Value| {
        members.insert(name.to_owned(), value);
    };
    add("severity", finding.severity.name().into());
    add("rule", finding.rule.name().into());
    add("message", finding.reason.as_str().into());
    add("file", file.into());
    if let Some(place) = finding.place {
        add("line", place.line.into());
        add("column", place.column.into());
    }
    for (name, text) in [("resource", &finding.resource), ("path", &finding.path)] {
        if !text.is_empty() {
            add(name, text.as_str().into());
        }
    }
    if let Some(name) = &finding.did_you_mean {
        add("did_you_mean", name.as_str().into());
    }
    Value::Object(members)
}
