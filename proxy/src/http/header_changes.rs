//! Headers that routes and filters add and remove.
//!
//! Compiled when configuration comes: names are parsed, values without commands are made. Source: Envoy `HeaderParser::evaluateHeaders`:
//! removals first; then all values are made from the headers as they are; then those that overwrite are put in, then those that are added.
use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_model::access_log::FormatPart;
use outrigger_model::http_filter::header_mutation::HeaderStep;
use outrigger_model::route::{AppendAction, HeaderAddition, HeaderMutations};
use smallvec::SmallVec;

use super::matcher::StringMatcher;
use super::stream::view;
use crate::codec::{RequestHead, ResponseHead};
use crate::telemetry::format::{Entry, LineFormat};
use crate::telemetry::stream_info::StreamInfo;

/// What one level of a route changes.
#[derive(Debug, Default)]
pub(super) struct HeaderChanges {
    pub(super) request: Changes,
    pub(super) response: Changes,
}

impl HeaderChanges {
    /// Compiles one level.
    pub(super) fn new(config: &HeaderMutations) -> Self {
        Self {
            request: Changes::new(&config.request_add, &config.request_remove),
            response: Changes::new(&config.response_add, &config.response_remove),
        }
    }

    /// Nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

/// Changes of one head.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    remove: Box<[HeaderName]>,
    add: Box<[Addition]>,
}

#[derive(Debug)]
struct Addition {
    name: HeaderName,
    value: Value,
    keeps_empty: bool,
    action: AppendAction,
}

#[derive(Debug)]
enum Value {
    Literal(HeaderValue),
    Format(LineFormat),
}

/// One change after the other, each made of what those before it left. Source: Envoy `HeaderMutations::evaluateHeaders`.
#[derive(Debug)]
pub(super) enum Step {
    Remove(HeaderName),
    RemoveMatching(StringMatcher),
    Add(Box<StepAddition>),
}

/// A header that a step adds.
#[derive(Debug)]
pub(super) struct StepAddition(Addition);

impl Step {
    /// `None`: it would change nothing.
    ///
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &HeaderStep) -> Result<Option<Self>, regex::Error> {
        Ok(match config {
            HeaderStep::Remove(name) => HeaderName::try_from(name.as_str()).ok().map(Self::Remove),
            HeaderStep::RemoveMatching(matcher) => Some(Self::RemoveMatching(StringMatcher::new(matcher)?)),
            HeaderStep::Add(addition) => {
                Addition::new(addition).map(|addition| Self::Add(Box::new(StepAddition(addition))))
            }
        })
    }

    /// The value of the header to add; `None`: none is added.
    pub(super) fn value<'e>(
        &self,
        has: impl Fn(&HeaderName) -> bool,
        entry: impl FnOnce() -> Entry<'e>,
    ) -> Option<HeaderValue> {
        let Self::Add(addition) = self else { return None };
        let addition = &addition.0;
        let is_wanted = match addition.action {
            AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => true,
            AppendAction::AddIfAbsent => !has(&addition.name),
            AppendAction::OverwriteIfExists => has(&addition.name),
        };
        is_wanted.then(|| addition.value(&entry())).flatten()
    }

    /// Makes the change, with the value from before.
    pub(super) fn apply(&self, value: Option<HeaderValue>, headers: &mut HeaderMap) {
        match self {
            Self::Remove(name) => drop(headers.remove(name)),
            Self::RemoveMatching(matcher) => {
                let names = headers
                    .keys()
                    .filter(|name| matcher.matches(name.as_str().as_bytes()));
                for name in names.cloned().collect::<Vec<_>>() {
                    headers.remove(name);
                }
            }
            Self::Add(addition) => {
                let Some(value) = value else { return };
                let addition = &addition.0;
                match addition.overwrites() {
                    true => drop(headers.insert(addition.name.clone(), value)),
                    false => append(headers, &addition.name, value),
                }
            }
        }
    }
}

/// Makes changes of a request, one after the other.
pub(super) fn change_request(steps: &[Step], head: &mut RequestHead, info: &StreamInfo) {
    for step in steps {
        let value = step.value(
            |name| head.headers.contains_key(name),
            || Entry {
                request: Some(view(head)),
                ..Entry::of(info)
            },
        );
        step.apply(value, &mut head.headers);
    }
}

/// Compiles steps; those that would change nothing are left out.
///
/// # Errors
/// A regular expression does not compile.
pub(super) fn steps(configs: &[HeaderStep]) -> Result<Box<[Step]>, regex::Error> {
    let steps = configs.iter().filter_map(|step| Step::new(step).transpose());
    steps.collect()
}

/// Values that are made and not yet put in.
type Made<'a> = SmallVec<[(&'a Addition, HeaderValue); 4]>;

impl Changes {
    /// Compiles lists whose names and values the model has judged.
    pub(crate) fn new(add: &[HeaderAddition], remove: &[String]) -> Self {
        let remove = remove
            .iter()
            .filter_map(|name| HeaderName::try_from(name.as_str()).ok());
        Self {
            remove: remove.collect(),
            add: add.iter().filter_map(Addition::new).collect(),
        }
    }

    /// Nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Changes a request.
    pub(crate) fn change_request(&self, head: &mut RequestHead, info: &StreamInfo) {
        self.remove_from(&mut head.headers);
        let entry = Entry {
            request: Some(view(head)),
            ..Entry::of(info)
        };
        let made = self.made(&entry, &head.headers);
        put(made, &mut head.headers);
    }

    /// Changes the response to `request`.
    pub(super) fn change_response(
        &self,
        head: &mut ResponseHead,
        info: &StreamInfo,
        request: Option<&RequestHead>,
    ) {
        self.remove_from(&mut head.headers);
        let entry = Entry {
            request: request.map(view),
            response_headers: Some(&head.headers),
            ..Entry::of(info)
        };
        let made = self.made(&entry, &head.headers);
        put(made, &mut head.headers);
    }

    fn remove_from(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
    }

    fn made<'a>(&'a self, entry: &Entry<'_>, headers: &HeaderMap) -> Made<'a> {
        let mut made = Made::new();
        for addition in &self.add {
            let present = || headers.contains_key(&addition.name);
            let is_wanted = match addition.action {
                AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => true,
                AppendAction::AddIfAbsent => !present(),
                AppendAction::OverwriteIfExists => present(),
            };
            if let Some(value) = is_wanted.then(|| addition.value(entry)).flatten() {
                made.push((addition, value));
            }
        }
        made
    }
}

fn put(made: Made<'_>, headers: &mut HeaderMap) {
    for (addition, value) in made.iter().filter(|(addition, _)| addition.overwrites()) {
        headers.insert(addition.name.clone(), value.clone());
    }
    for (addition, value) in made {
        if !addition.overwrites() {
            append(headers, &addition.name, value);
        }
    }
}

/// Headers that Envoy holds one value of: another one is appended to it. Source: envoy/http/header_map.h, `INLINE_*_HEADERS`.
const SINGLE: [&str; 21] = [
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "te",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-external-address",
    "x-envoy-original-path",
    "x-envoy-upstream-service-time",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

/// Adds a header; to one that there may be once its value is added.
pub(super) fn append(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    if SINGLE.contains(&name.as_str())
        && let Some(old) = headers.get(name)
        && let Ok(both) = HeaderValue::from_bytes(&[old.as_bytes(), b",", value.as_bytes()].concat())
    {
        headers.insert(name.clone(), both);
        return;
    }
    headers.append(name.clone(), value);
}

impl Addition {
    fn new(config: &HeaderAddition) -> Option<Self> {
        let literal = match config.value.as_slice() {
            [] => Some(""),
            [FormatPart::Literal(text)] => Some(text.as_str()),
            _ => None,
        };
        Some(Self {
            name: HeaderName::try_from(config.name.as_str()).ok()?,
            value: match literal {
                Some(text) => Value::Literal(HeaderValue::from_bytes(text.as_bytes()).ok()?),
                None => Value::Format(LineFormat::new(&config.value)),
            },
            keeps_empty: config.keeps_empty,
            action: config.action,
        })
    }

    fn overwrites(&self) -> bool {
        matches!(
            self.action,
            AppendAction::OverwriteIfExists | AppendAction::OverwriteIfExistsOrAdd
        )
    }

    /// `None`: it is empty, and an empty one is not wanted.
    fn value(&self, entry: &Entry<'_>) -> Option<HeaderValue> {
        let value = match &self.value {
            Value::Literal(value) => value.clone(),
            Value::Format(format) => {
                let mut bytes = Vec::new();
                format.write_value(entry, &mut bytes);
                HeaderValue::from_bytes(&bytes).ok()?
            }
        };
        (self.keeps_empty || !value.is_empty()).then_some(value)
    }
}
