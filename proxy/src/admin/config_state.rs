//! `/config/problems`, `/config/history`, `/config/diff`: what of the configuration is not in force, what it was, what changed; and
//! `/config/names`, which Istio has in its agent. Ours; Envoy has nothing of the kind.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::SystemTime;

use http::StatusCode;
use outrigger_model::dump::{Descriptors, timestamp};
use outrigger_model::nds::NameInfo;
use serde::Serialize;
use serde_json::Value;

use super::answer::Answer;
use super::endpoint::{Later, Param, ParamKind};
use super::json;
use super::query::Query;
use super::{AdminView, Problems};
use crate::config::history::{Difference, Summary};
use crate::config::problems::{Kind, Listed};
use crate::config::restore::SnapshotStatus;

const FORMAT: Param = Param {
    name: "format",
    help: "File format to use",
    kind: ParamKind::OneOf(&["text", "json"]),
};

pub(super) const PARAMS: &[Param] = &[FORMAT];

pub(super) const DIFF_PARAMS: &[Param] = &[
    Param {
        name: "from",
        help: "A number of /config/history; 0: before the first. Without: the version before `to`",
        kind: ParamKind::Text,
    },
    Param {
        name: "to",
        help: "A number of /config/history. Without: the newest",
        kind: ParamKind::Text,
    },
    FORMAT,
];

/// `/config/problems`.
pub(super) fn problems(view: &dyn AdminView, query: &Query) -> Result<Later, Answer> {
    let problems = view.problems();
    let is_json = is_json(query);
    Ok(Box::new(move |_| {
        if is_json {
            return rendered(&ProblemsJson::of(&problems));
        }
        Answer::text(problems_text(&problems))
    }))
}

/// `/config/history`.
pub(super) fn history(view: &dyn AdminView, query: &Query) -> Answer {
    let history = view.history();
    if is_json(query) {
        return rendered(&VersionsJson {
            versions: history.iter().map(VersionJson::of).collect(),
        });
    }
    let line = |each: &Summary| {
        let totals = each.totals;
        format!(
            "{} {} {} version {:?}: {} added, {} changed, {} removed\n",
            each.number,
            timestamp(each.at),
            short(each.type_url),
            each.version,
            totals.added,
            totals.changed,
            totals.removed
        )
    };
    Answer::text(history.iter().map(line).collect::<String>())
}

/// `/config/names`, in the form of the agent's `/debug/ndsz`: the JSON of `istio.networking.nds.v1.NameTable`.
pub(super) fn names(view: &dyn AdminView, _: &Query) -> Answer {
    let table = view.name_table();
    let names = table.iter().flat_map(|table| &table.names);
    rendered(&NamesJson {
        table: names
            .map(|(name, info)| (name.as_str(), NameJson::of(info)))
            .collect(),
    })
}

/// `/config/diff`.
pub(super) fn diff(view: &dyn AdminView, query: &Query) -> Result<Later, Answer> {
    let newest = view.history().first().map_or(0, |version| version.number);
    let to = number(query, "to")?.unwrap_or(newest);
    let from = number(query, "from")?.unwrap_or(to.saturating_sub(1));
    let differences = view
        .differences(from, to)
        .map_err(|error| Answer::text(format!("{error}\n")).with_status(StatusCode::NOT_FOUND))?;
    let is_json = is_json(query);
    Ok(Box::new(move |_| {
        let descriptors = match Descriptors::full() {
            Ok(descriptors) => descriptors,
            Err(error) => return Answer::internal(error.to_string()),
        };
        let resources: Vec<_> = differences
            .iter()
            .map(|each| ResourceJson::of(each, &descriptors))
            .collect();
        if is_json {
            return rendered(&DiffJson { from, to, resources });
        }
        Answer::text(resources.iter().map(ResourceJson::text).collect::<String>())
    }))
}

fn is_json(query: &Query) -> bool {
    query.value("format") == Some("json")
}

fn number(query: &Query, name: &str) -> Result<Option<u64>, Answer> {
    let text = query.text(name);
    let number = text.map(str::parse).transpose();
    number.map_err(|_| {
        Answer::bad_request(format!(
            "{name}: {:?} is no number of /config/history\n",
            text.unwrap_or_default()
        ))
    })
}

fn rendered(value: &impl Serialize) -> Answer {
    json::pretty(value).map_or_else(|error| Answer::internal(error.to_string()), Answer::json)
}

/// `Cluster` of `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
fn short(type_url: &str) -> &str {
    type_url.rsplit(['.', '/']).next().unwrap_or(type_url)
}

fn problems_text(problems: &Problems) -> String {
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(out, "{text}");
    };
    if let Some(snapshot) = &problems.snapshot {
        let SnapshotStatus {
            path,
            state,
            reason,
            saved,
            since,
            types,
        } = snapshot;
        line(format_args!("snapshot {}: {state}", path.display()));
        if let Some(since) = since {
            line(format_args!("  since {}", timestamp(*since)));
        }
        if let Some(saved) = saved {
            line(format_args!("  written {}", timestamp(*saved)));
        }
        if let Some(reason) = reason {
            line(format_args!("  {reason}"));
        }
        for type_url in types {
            line(format_args!(
                "  {} not sent by the control plane yet",
                short(type_url)
            ));
        }
    }
    for each in &problems.listed {
        let Listed {
            kind,
            type_url,
            resource,
            path,
            reason,
            since,
            version,
        } = each;
        let colon = if path.is_empty() { "" } else { ": " };
        let (kind, type_name, since) = (kind_name(*kind), short(type_url), timestamp(*since));
        line(format_args!(
            "{kind} {type_name} {resource:?}: {path}{colon}{reason} (since {since}, version {version:?})"
        ));
    }
    if out.is_empty() {
        out.push_str("no problem\n");
    }
    out
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Rejected => "rejected",
        Kind::Unsupported => "unsupported",
    }
}

#[derive(Serialize)]
struct NamesJson<'a> {
    table: BTreeMap<&'a str, NameJson<'a>>,
}

#[derive(Serialize)]
struct NameJson<'a> {
    ips: &'a [IpAddr],
    registry: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    shortname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
}

impl<'a> NameJson<'a> {
    fn of(info: &'a NameInfo) -> Self {
        let NameInfo {
            addresses,
            registry,
            short_name,
            namespace,
        } = info;
        Self {
            ips: addresses,
            registry,
            shortname: short_name,
            namespace,
        }
    }
}

#[derive(Serialize)]
struct ProblemsJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotJson<'a>>,
    problems: Vec<ProblemJson<'a>>,
}

#[derive(Serialize)]
struct SnapshotJson<'a> {
    path: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    types_not_sent: &'a [&'static str],
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    kind: &'static str,
    #[serde(rename = "type")]
    type_url: &'static str,
    resource: &'a str,
    path: &'a str,
    reason: &'a str,
    since: String,
    version: &'a str,
}

impl<'a> ProblemsJson<'a> {
    fn of(problems: &'a Problems) -> Self {
        let text = |time: &Option<SystemTime>| time.map(timestamp);
        Self {
            snapshot: problems.snapshot.as_ref().map(|snapshot| SnapshotJson {
                path: snapshot.path.display().to_string(),
                state: snapshot.state,
                reason: snapshot.reason.as_deref(),
                written: text(&snapshot.saved),
                since: text(&snapshot.since),
                types_not_sent: &snapshot.types,
            }),
            problems: problems.listed.iter().map(ProblemJson::of).collect(),
        }
    }
}

impl<'a> ProblemJson<'a> {
    fn of(listed: &'a Listed) -> Self {
        Self {
            kind: kind_name(listed.kind),
            type_url: listed.type_url,
            resource: &listed.resource,
            path: &listed.path,
            reason: &listed.reason,
            since: timestamp(listed.since),
            version: &listed.version,
        }
    }
}

#[derive(Serialize)]
struct VersionsJson<'a> {
    versions: Vec<VersionJson<'a>>,
}

#[derive(Serialize)]
struct VersionJson<'a> {
    number: u64,
    #[serde(rename = "type")]
    type_url: &'static str,
    version: &'a str,
    accepted: String,
    added: usize,
    changed: usize,
    removed: usize,
}

impl<'a> VersionJson<'a> {
    fn of(summary: &'a Summary) -> Self {
        Self {
            number: summary.number,
            type_url: summary.type_url,
            version: &summary.version,
            accepted: timestamp(summary.at),
            added: summary.totals.added,
            changed: summary.totals.changed,
            removed: summary.totals.removed,
        }
    }
}

#[derive(Serialize)]
struct DiffJson<'a> {
    from: u64,
    to: u64,
    resources: Vec<ResourceJson<'a>>,
}

#[derive(Serialize)]
struct ResourceJson<'a> {
    #[serde(rename = "type")]
    type_url: &'static str,
    name: &'a str,
    change: &'static str,
    /// Of a changed resource.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<FieldJson>,
}

/// A field that differs; one side is missing where the field is.
#[derive(Serialize)]
struct FieldJson {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

impl<'a> ResourceJson<'a> {
    fn of(difference: &'a Difference, descriptors: &Descriptors) -> Self {
        let json = |bytes: &[u8]| {
            let text = descriptors.any_to_json(difference.type_url, bytes);
            serde_json::from_str::<Value>(&text).unwrap_or(Value::Null)
        };
        let mut fields = Vec::new();
        let change = match (&difference.before, &difference.after) {
            (Some(before), Some(after)) => {
                compare("", Some(&json(before)), Some(&json(after)), &mut fields);
                "changed"
            }
            (None, _) => "added",
            (Some(_), None) => "removed",
        };
        Self {
            type_url: difference.type_url,
            name: &difference.name,
            change,
            fields,
        }
    }

    fn text(&self) -> String {
        let mut out = format!("{} {} {:?}\n", self.change, short(self.type_url), self.name);
        for FieldJson { path, before, after } in &self.fields {
            let _infallible = match (before, after) {
                (Some(before), Some(after)) => writeln!(out, "  {path}: {before} -> {after}"),
                (Some(before), None) => writeln!(out, "  - {path}: {before}"),
                (_, after) => writeln!(out, "  + {path}: {}", after.clone().unwrap_or_default()),
            };
        }
        out
    }
}

/// Fields that differ, the deepest that do.
fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, fields: &mut Vec<FieldJson>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            let dot = if path.is_empty() { "" } else { "." };
            let only_after = after.keys().filter(|name| !before.contains_key(*name));
            for name in before.keys().chain(only_after) {
                compare(
                    &format!("{path}{dot}{name}"),
                    before.get(name),
                    after.get(name),
                    fields,
                );
            }
        }
        (Some(Value::Array(before)), Some(Value::Array(after))) => {
            for index in 0..before.len().max(after.len()) {
                compare(
                    &format!("{path}[{index}]"),
                    before.get(index),
                    after.get(index),
                    fields,
                );
            }
        }
        (before, after) => fields.push(FieldJson {
            path: path.to_owned(),
            before: before.cloned(),
            after: after.cloned(),
        }),
    }
}
