//! For code review: SARIF 2.1.0 (OASIS, docs.oasis-open.org/sarif/sarif/v2.1.0), one run.
use std::path::Path;

use outrigger_model::validate::{Finding, Rule};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::Outcome;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// What stands for itself in the path of a URI (RFC 3986 §3.3). A colon does not: a relative path could be taken for a scheme.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The report.
pub(super) fn render(outcome: &Outcome) -> String {
    let rules: Vec<Value> = Rule::ALL.iter().map(|rule| self::rule(*rule)).collect();
    let unread = outcome.unread.iter().map(|(name, reason)| unread(name, reason));
    let found = outcome
        .report
        .findings
        .iter()
        .map(|finding| result(outcome, finding));
    let results: Vec<Value> = unread.chain(found).collect();
    let whole = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "outrigger", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "invocations": [{"executionSuccessful": outcome.status() != super::UNREADABLE, "exitCode": outcome.status()}],
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{whole:#}\n")
}

fn rule(rule: Rule) -> Value {
    json!({
        "id": rule.name(),
        "shortDescription": {"text": rule.description()},
        "defaultConfiguration": {"level": rule.severity().name()},
    })
}

fn result(outcome: &Outcome, finding: &Finding) -> Value {
    let file = outcome
        .inputs
        .get(finding.file)
        .map_or("-", |input| input.name.as_str());
    let mut physical = json!({"artifactLocation": {"uri": uri(file)}});
    if let (Some(place), Some(physical)) = (finding.place, physical.as_object_mut()) {
        physical.insert(
            "region".to_owned(),
            json!({"startLine": place.line, "startColumn": place.column}),
        );
    }
    let mut location = json!({"physicalLocation": physical});
    let name = logical(finding);
    if let (false, Some(location)) = (name.is_empty(), location.as_object_mut()) {
        location.insert(
            "logicalLocations".to_owned(),
            json!([{"fullyQualifiedName": name}]),
        );
    }
    json!({
        "ruleId": finding.rule.name(),
        "ruleIndex": finding.rule.index(),
        "level": finding.severity.name(),
        "message": {"text": message(finding, &name)},
        "locations": [location],
    })
}

fn unread(name: &str, reason: &str) -> Value {
    json!({
        "ruleId": Rule::Unreadable.name(),
        "ruleIndex": Rule::Unreadable.index(),
        "level": "error",
        "message": {"text": reason},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri(name)}}}],
    })
}

/// One sentence that is understood without the logical location, which most viewers do not show.
fn message(finding: &Finding, name: &str) -> String {
    let place = if name.is_empty() {
        String::new()
    } else {
        format!("{name}: ")
    };
    let meant = finding.did_you_mean.as_deref();
    let meant = meant
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default();
    format!("{place}{}{meant}", finding.reason)
}

fn logical(finding: &Finding) -> String {
    let parts = [finding.resource.as_str(), finding.path.as_str()];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}

/// Absolute paths become `file:` URIs, relative ones stay relative.
fn uri(name: &str) -> String {
    let path = utf8_percent_encode(name, PATH);
    if Path::new(name).is_absolute() {
        format!("file://{path}")
    } else {
        path.to_string()
    }
}
