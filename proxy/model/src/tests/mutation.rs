//! Verdicts are true: every field that has one is changed in a capture (or, where no capture has its message, in a file of `seeds/`) and
//! the conversion does what the verdict says.
//!
//! - supported, and what the model keeps for a later issue: some change gives another model value;
//! - inert: every change gives the same value and no problem;
//! - unsupported: some change is accepted and lists a problem at the field;
//! - refused: some change is rejected at the field;
//! - partly: some change gives one of the three.
use std::collections::{HashMap, HashSet};

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind as FieldKind, MapKey, MessageDescriptor, ReflectMessage, Value,
};

use super::verdict::{self, Kind, Verdict};
use super::{AWAITED_TYPE, BOOTSTRAP_TYPE, Model, captures, convert};
use crate::decode;
use crate::dump::Descriptors;
use crate::field::{Problem, Rejection};

/// Fields that say what an extension is called, and so only show in rejections.
const ONLY_IN_MESSAGES: [&str; 13] = [
    // `rules_mean_what_they_say` in policy.rs.
    "envoy.config.rbac.v3.Permission.uri_template",
    "envoy.config.accesslog.v3.AccessLog.name",
    "envoy.config.accesslog.v3.ExtensionFilter.name",
    "envoy.config.core.v3.TypedExtensionConfig.name",
    "envoy.config.route.v3.RetryPolicy.RetryPriority.name",
    "envoy.config.trace.v3.Tracing.Http.name",
    "envoy.config.cluster.v3.Filter.name",
    "envoy.config.core.v3.TransportSocket.name",
    "envoy.config.listener.v3.Filter.name",
    "envoy.config.listener.v3.ListenerFilter.name",
    "envoy.config.route.v3.RetryPolicy.RetryHostPredicate.name",
    // `optional_settings_that_are_unknown_are_left_out_and_listed` in refusals.rs.
    "envoy.config.route.v3.FilterConfig.is_optional",
    // `an_optional_filter_that_is_unknown_is_left_out_and_listed` below.
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter.is_optional",
];

/// A resource to change.
struct Seed {
    type_url: String,
    bytes: Vec<u8>,
    message: DynamicMessage,
    base: (Model, Vec<Problem>),
}

impl Seed {
    /// `None`: the resource is refused as it is.
    fn new(descriptors: &Descriptors, type_url: &str, bytes: Vec<u8>) -> Option<Self> {
        let base = convert(type_url, &bytes).ok()?;
        let message = descriptors.decode_any(type_url, &bytes).unwrap();
        Some(Self {
            type_url: type_url.to_owned(),
            bytes,
            message,
            base,
        })
    }
}

fn seeds(descriptors: &Descriptors) -> Vec<Seed> {
    let files = [
        (decode::LISTENER_TYPE, include_str!("seeds/listeners.json")),
        (decode::CLUSTER_TYPE, include_str!("seeds/clusters.json")),
        (decode::ROUTE_TABLE_TYPE, include_str!("seeds/routes.json")),
        (decode::SCOPE_TYPE, include_str!("seeds/scopes.json")),
        (decode::LOAD_ASSIGNMENT_TYPE, include_str!("seeds/endpoints.json")),
        (decode::SECRET_TYPE, include_str!("seeds/secrets.json")),
        (decode::NAME_TABLE_TYPE, include_str!("seeds/names.json")),
        (
            decode::PROXY_CONFIG_TYPE,
            include_str!("seeds/proxy_configs.json"),
        ),
        (BOOTSTRAP_TYPE, include_str!("seeds/bootstraps.json")),
        (AWAITED_TYPE, include_str!("seeds/policies.json")),
    ];
    let mut seeds: Vec<Seed> = Vec::new();
    for captured in captures::all() {
        if !seeds.iter().any(|seed| seed.bytes == captured.bytes) {
            seeds.extend(Seed::new(descriptors, &captured.type_url, captured.bytes));
        }
    }
    for (type_url, text) in files {
        let documents: Vec<serde_json::Value> =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{type_url}: {e}"));
        for document in documents {
            let message = DynamicMessage::deserialize(descriptors.by_url(type_url).unwrap(), document);
            let message = message.unwrap_or_else(|error| panic!("{type_url}: {error}"));
            let bytes = prost::Message::encode_to_vec(&message);
            let problem = convert(type_url, &bytes).err();
            seeds.push(
                Seed::new(descriptors, type_url, bytes).unwrap_or_else(|| panic!("{type_url}: {problem:?}")),
            );
        }
    }
    seeds
}

/// Takes a message, its path, and what puts a changed one in its place.
pub(super) type Visitor<'v> =
    dyn FnMut(&DynamicMessage, &str, &dyn Fn(DynamicMessage) -> DynamicMessage) + 'v;

/// Every message inside a message, opened `Any`s included, with a way to put a changed one in its place.
pub(super) fn visit(
    descriptors: &Descriptors,
    message: &DynamicMessage,
    path: &str,
    rebuild: &dyn Fn(DynamicMessage) -> DynamicMessage,
    each: &mut Visitor<'_>,
) {
    each(message, path, rebuild);
    if let Some(inner) = open(descriptors, message) {
        let close = |changed: DynamicMessage| {
            let mut any = message.clone();
            any.set_field_by_name(
                "value",
                Value::Bytes(prost::Message::encode_to_vec(&changed).into()),
            );
            rebuild(any)
        };
        visit(
            descriptors,
            &inner,
            &format!("{path}/{}", inner.descriptor().full_name()),
            &close,
            each,
        );
    }
    for (field, value) in message.fields() {
        let path = format!("{path}/{}", field.name());
        match value {
            Value::Message(child) => {
                let put = |changed| rebuild(with(message, &field, Value::Message(changed)));
                visit(descriptors, child, &path, &put, each);
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let Value::Message(child) = item else { continue };
                    let put = |changed| {
                        let mut items = items.clone();
                        items[index] = Value::Message(changed);
                        rebuild(with(message, &field, Value::List(items)))
                    };
                    visit(descriptors, child, &path, &put, each);
                }
            }
            Value::Map(entries) => {
                for (key, item) in entries {
                    let Value::Message(child) = item else { continue };
                    let put = |changed| {
                        let mut entries = entries.clone();
                        entries.insert(key.clone(), Value::Message(changed));
                        rebuild(with(message, &field, Value::Map(entries)))
                    };
                    visit(descriptors, child, &path, &put, each);
                }
            }
            _ => (),
        }
    }
}

fn open(descriptors: &Descriptors, message: &DynamicMessage) -> Option<DynamicMessage> {
    if message.descriptor().full_name() != "google.protobuf.Any" {
        return None;
    }
    let type_url = message.get_field_by_name("type_url")?.as_str()?.to_owned();
    descriptors.decode_any(&type_url, message.get_field_by_name("value")?.as_bytes()?)
}

fn with(message: &DynamicMessage, field: &FieldDescriptor, value: Value) -> DynamicMessage {
    let mut changed = message.clone();
    changed.set_field(field, value);
    changed
}

type Examples = HashMap<String, Vec<DynamicMessage>>;

/// Messages of each type that occur in the seeds, to put elsewhere.
fn examples(descriptors: &Descriptors, seeds: &[Seed]) -> Examples {
    let mut examples = Examples::new();
    for seed in seeds {
        visit(descriptors, &seed.message, "", &|m| m, &mut |message, _, _| {
            let known = examples
                .entry(message.descriptor().full_name().to_owned())
                .or_default();
            // Of each type of `Any` a few: most places take only one type.
            let url = message.get_field_by_name("type_url").map(|url| url.into_owned());
            let alike = known
                .iter()
                .filter(|known| known.get_field_by_name("type_url").map(|url| url.into_owned()) == url);
            if alike.count() < 16 && !known.contains(message) {
                known.push(message.clone());
            }
        });
    }
    examples
}

/// Values to try for one item of a field.
fn values(kind: &FieldKind, current: Option<&Value>, examples: &Examples) -> Vec<Value> {
    const TEXTS: [&str; 14] = [
        "x",
        "127.0.0.9",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "P-256",
        "reset",
        "UH",
        "%PROTOCOL%",
        "spiffe://y/",
        "/x",
        "raw_buffer",
        "10.0.0.0",
        "%%",
        "x/*",
        "/dev/null2",
    ];
    const NUMBERS: [u32; 10] = [0, 1, 2, 3, 8, 80, 201, 599, 70_000, 100_000];
    match kind {
        FieldKind::Bool => vec![Value::Bool(!current.and_then(Value::as_bool).unwrap_or(false))],
        FieldKind::String => TEXTS.map(|text| Value::String(text.to_owned())).to_vec(),
        FieldKind::Bytes => vec![Value::Bytes(b"other".to_vec().into())],
        FieldKind::Uint32 => NUMBERS.map(Value::U32).to_vec(),
        FieldKind::Int32 => NUMBERS.map(|n| Value::I32(n as i32)).to_vec(),
        FieldKind::Uint64 => NUMBERS.map(|n| Value::U64(n.into())).to_vec(),
        FieldKind::Int64 => NUMBERS.map(|n| Value::I64(n.into())).to_vec(),
        FieldKind::Double => vec![Value::F64(1.0), Value::F64(50.0)],
        FieldKind::Enum(kind) => kind
            .values()
            .map(|value| Value::EnumNumber(value.number()))
            .collect(),
        FieldKind::Message(message) => messages(message, examples),
        other => panic!("no value for {other:?}"),
    }
}

fn messages(message: &MessageDescriptor, examples: &Examples) -> Vec<Value> {
    let mut values: Vec<_> = examples
        .get(message.full_name())
        .into_iter()
        .flatten()
        .cloned()
        .map(Value::Message)
        .collect();
    let empty = DynamicMessage::new(message.clone());
    for field in message
        .fields()
        .filter(|field| field.name() == "value" && !field.is_list())
    {
        // The wrappers, and Percent.
        if let FieldKind::Bool | FieldKind::Uint32 | FieldKind::Uint64 | FieldKind::Double = field.kind() {
            for value in self::values(&field.kind(), None, examples) {
                values.push(Value::Message(with(&empty, &field, value)));
            }
        }
    }
    for field in message
        .fields()
        .filter(|field| field.kind() == FieldKind::Bool && !field.is_list())
    {
        values.push(Value::Message(with(&empty, &field, Value::Bool(true))));
    }
    if message.full_name() == "google.protobuf.Duration" {
        let seconds = message.get_field_by_name("seconds").unwrap();
        values.extend([3, 400_000].map(|n| Value::Message(with(&empty, &seconds, Value::I64(n)))));
    }
    values.push(Value::Message(empty));
    values
}

/// The message with this field changed, in many ways.
fn changes(message: &DynamicMessage, field: &FieldDescriptor, examples: &Examples) -> Vec<DynamicMessage> {
    let mut changed = Vec::new();
    let current = message.get_field(field).into_owned();
    let set = |value| with(message, field, value);
    if message.has_field(field) {
        let mut cleared = message.clone();
        cleared.clear_field(field);
        changed.push(cleared);
    }
    match current {
        Value::List(items) => {
            changed.extend(
                values(&field.kind(), None, examples)
                    .into_iter()
                    .flat_map(|value| {
                        let mut longer = items.clone();
                        longer.push(value.clone());
                        [set(Value::List(longer)), set(Value::List(vec![value]))]
                    }),
            );
        }
        Value::Map(entries) => {
            let FieldKind::Message(entry) = field.kind() else {
                panic!("a map without entries")
            };
            let kind = entry.map_entry_value_field().kind();
            changed.extend(values(&kind, None, examples).into_iter().map(|value| {
                let mut more = entries.clone();
                more.insert(MapKey::String("x".to_owned()), value);
                set(Value::Map(more))
            }));
        }
        current => changed.extend(
            values(&field.kind(), Some(&current), examples)
                .into_iter()
                .map(set),
        ),
    }
    changed
}

fn fields(message: &MessageDescriptor, name: &str) -> Vec<FieldDescriptor> {
    match message.get_field_by_name(name) {
        Some(field) => vec![field],
        None => message
            .oneofs()
            .find(|oneof| oneof.name() == name)
            .unwrap()
            .fields()
            .collect(),
    }
}

/// Which of the places that read a message reads it here.
pub(super) fn applies(verdict: &Verdict, path: &str) -> bool {
    let manager = path.contains("HttpConnectionManager");
    let authorizer = path.contains("ext_authz");
    let exporter = path.contains("access_loggers") || path.contains("config.trace") || authorizer;
    let metadata = path.contains("initial_metadata") || authorizer;
    if verdict.message == "envoy.config.core.v3.HeaderValue" {
        return match verdict.place.as_str() {
            "header_values" => metadata && exporter,
            "initial_metadata" => metadata && !exporter,
            _ => !metadata,
        };
    }
    match verdict.place.as_str() {
        "Common" | "Http1" => manager,
        "HttpProtocol" | "http1" => !manager,
        "AdsConfig" => path.contains("ads_config"),
        "grpc_source" => !path.contains("ads_config"),
        "GrpcMethod" => path.contains(".ratelimit.v3"),
        "grpc_server" => !exporter && !path.contains(".ratelimit.v3"),
        "GrpcTarget" => exporter,
        _ => true,
    }
}

/// What a change did.
fn outcome(seed: &Seed, changed: DynamicMessage) -> Result<(bool, Vec<Problem>), Rejection> {
    let (value, problems) = convert(&seed.type_url, &prost::Message::encode_to_vec(&changed))?;
    let new = problems
        .into_iter()
        .filter(|problem| !seed.base.1.contains(problem));
    Ok((value != seed.base.0, new.collect()))
}

/// Whether this change shows what the verdict claims; `Err` if it shows that the claim is wrong.
fn shows(
    verdict: &Verdict,
    field: &str,
    outcome: &Result<(bool, Vec<Problem>), Rejection>,
) -> Result<bool, String> {
    let at_field = |path: &str| {
        path.split(['.', '['])
            .any(|part| part == field || part == verdict.field)
    };
    let listed = |problems: &[Problem]| problems.iter().any(|problem| at_field(&problem.path));
    Ok(match (verdict.kind, outcome) {
        (Kind::Supported | Kind::Awaited, Ok((differs, _))) => *differs,
        (Kind::Supported | Kind::Awaited, Err(_)) => false,
        (Kind::Inert, Ok((false, problems))) if problems.is_empty() => true,
        (Kind::Inert, other) => return Err(format!("is called inert, but a change gives {other:?}")),
        (Kind::Unsupported, Ok((_, problems))) => listed(problems),
        (Kind::Unsupported, Err(_)) => false,
        (Kind::Refused, Err(rejection)) => at_field(&rejection.path) || verdict.oneof.is_some(),
        (Kind::Refused, Ok(_)) => false,
        (Kind::Partly, Ok((differs, problems))) => *differs || !problems.is_empty(),
        (Kind::Partly, Err(rejection)) => at_field(&rejection.path),
    })
}

#[test]
fn every_verdict_is_true() {
    let descriptors = Descriptors::full().unwrap();
    let seeds = seeds(&descriptors);
    let examples = examples(&descriptors, &seeds);
    let mut open: HashMap<String, Vec<Verdict>> = HashMap::new();
    for verdict in verdict::all(&descriptors) {
        let name = format!("{}.{}", verdict.message, verdict.field);
        if !ONLY_IN_MESSAGES.contains(&name.as_str()) {
            open.entry(verdict.message.clone()).or_default().push(verdict);
        }
    }
    let mut wrong = Vec::new();
    let mut seen = HashSet::new();
    for seed in &seeds {
        visit(
            &descriptors,
            &seed.message,
            "",
            &|m| m,
            &mut |message, path, rebuild| {
                let descriptor = message.descriptor();
                seen.insert(descriptor.full_name().to_owned());
                let Some(verdicts) = open.get_mut(descriptor.full_name()) else {
                    return;
                };
                verdicts.retain(|verdict| {
                    if !applies(verdict, path) {
                        return true;
                    }
                    let mut shown = false;
                    for field in fields(&descriptor, &verdict.field) {
                        for changed in changes(message, &field, &examples) {
                            match shows(verdict, field.name(), &outcome(seed, rebuild(changed))) {
                                Ok(this) => shown |= this,
                                Err(error) => {
                                    wrong.push(format!(
                                        "{}.{}: {error} ({path})",
                                        verdict.message, verdict.field
                                    ));
                                    return false;
                                }
                            }
                            if shown && verdict.kind != Kind::Inert {
                                return false;
                            }
                        }
                    }
                    !shown
                });
            },
        );
    }
    for verdict in open.into_values().flatten() {
        let why = if seen.contains(&verdict.message) {
            "no change shows it"
        } else {
            "no seed has the message"
        };
        wrong.push(format!(
            "{}.{} ({}) is called {:?}: {why}",
            verdict.message, verdict.field, verdict.place, verdict.kind
        ));
    }
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{} verdicts are not true:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn an_optional_filter_that_is_unknown_is_left_out_and_listed() {
    let descriptors = Descriptors::full().unwrap();
    let text = include_str!("seeds/listeners.json").replace(
        "\"typed_config\": {\"@type\": \"type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors\"}",
        "\"is_optional\": true, \"typed_config\": {\"@type\": \"type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\"}",
    );
    let documents: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let descriptor = descriptors.by_url(decode::LISTENER_TYPE).unwrap();
    let message = DynamicMessage::deserialize(descriptor, documents[0].clone()).unwrap();
    let converted = decode::listener(&prost::Message::encode_to_vec(&message)).unwrap();
    assert!(
        converted
            .problems
            .iter()
            .any(|problem| problem.reason.contains("lua.v3.Lua")),
        "{:?}",
        converted.problems
    );
}
