//! The same for programs: `start`, a `second` each second, `summary`. docs/demo.md describes the fields.

use serde_json::{Map, Value, json};

use super::{Facts, View};
use crate::run::state::{Note, PartState};
use crate::run::tally::Window;

pub(super) fn start(facts: &Facts) -> Value {
    let admin: Map<String, Value> = facts
        .admin
        .iter()
        .map(|(name, address)| ((*name).to_owned(), address.to_string().into()))
        .collect();
    let replaced: Vec<Value> = facts
        .replaced
        .iter()
        .map(
            |it| json!({"what": it.what, "wanted": it.wanted.to_string(), "instead": it.instead.to_string()}),
        )
        .collect();
    json!({
        "type": "start",
        "file": facts.file.to_string_lossy(),
        "admin": admin,
        "bill_service": facts.bill_service.to_string(),
        "replaced": replaced,
    })
}

pub(super) fn second(view: &View, notes: &[Note]) -> Value {
    let mut object = common("second", view, notes);
    object.extend(window(&view.tally.second));
    object.insert("since_change".to_owned(), window(&view.tally.since_change).into());
    object.into()
}

pub(super) fn summary(view: &View, notes: &[Note]) -> Value {
    let mut object = common("summary", view, notes);
    object.extend(window(&view.tally.total));
    object.into()
}

fn common(kind: &str, view: &View, notes: &[Note]) -> Map<String, Value> {
    let weights: Map<String, Value> = view
        .weights
        .iter()
        .map(|(name, weight)| (name.clone(), (*weight).into()))
        .collect();
    let processes: Vec<Value> = view
        .parts
        .iter()
        .map(|(name, state)| process(name, state))
        .collect();
    let identities: Vec<Value> = view
        .tally
        .identities
        .iter()
        .map(|pair| json!({"client": pair.client, "server": pair.server}))
        .collect();
    let events: Vec<Value> = notes
        .iter()
        .map(|note| json!({"event": note.event.name(), "text": note.text}))
        .collect();
    let mut object = Map::new();
    object.insert("type".to_owned(), kind.into());
    object.insert("elapsed_ms".to_owned(), millis(view.elapsed).into());
    object.insert("weights".to_owned(), weights.into());
    object.insert("refused".to_owned(), view.is_refused.into());
    object.insert("processes".to_owned(), processes.into());
    object.insert("identities".to_owned(), identities.into());
    object.insert("resent".to_owned(), view.tally.resent.into());
    object.insert("events".to_owned(), events.into());
    object
}

fn window(window: &Window) -> Map<String, Value> {
    let versions: Map<String, Value> = window
        .versions
        .iter()
        .map(|(name, latencies)| {
            let milliseconds = |percent| latencies.percentile(percent).map(|it| it.as_secs_f64() * 1000.0);
            let value = json!({
                "requests": latencies.count,
                "share_percent": window.share(name),
                "p50_ms": milliseconds(50),
                "p99_ms": milliseconds(99),
            });
            (name.clone(), value)
        })
        .collect();
    let mut object = Map::new();
    object.insert(
        "requests".to_owned(),
        (window.answered() + window.failed()).into(),
    );
    object.insert("failed".to_owned(), window.failed().into());
    object.insert("failures".to_owned(), json!(window.failures));
    object.insert("versions".to_owned(), versions.into());
    object
}

fn process(name: &str, state: &PartState) -> Value {
    match state {
        PartState::Running { pid } => json!({"name": name, "pid": pid}),
        PartState::Ended { why, .. } => json!({"name": name, "ended": why}),
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
