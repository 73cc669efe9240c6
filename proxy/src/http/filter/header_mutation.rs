//! Changes headers and query parameters, one step after the other.
//! Source: envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto; Envoy `HeaderMutation`, `HeaderMutations`,
//! `QueryParamsMulti`.
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName};
use outrigger_model::http_filter::header_mutation as model;
use outrigger_model::route::AppendAction;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::settings::RouteConfig;
use super::{Decode, Decoding, Encoding, Filter};
use crate::codec::body::Transform;
use crate::codec::{Body, RequestHead};
use crate::http::header_changes::{Step, change_request, steps};
use crate::http::stream::{Stream, view};
use crate::telemetry::format::{Entry, LineFormat};
use crate::telemetry::stream_info::StreamInfo;

/// The filter at its place.
#[derive(Debug)]
pub(super) struct HeaderMutationFilter {
    own: Arc<Mutations>,
    most_specific_last: bool,
}

/// What changes, ready to use.
#[derive(Debug)]
pub(super) struct Mutations {
    request: Box<[Step]>,
    query: Box<[QueryStep]>,
    response: Box<[Step]>,
    request_trailers: Box<[Step]>,
    response_trailers: Box<[Step]>,
}

#[derive(Debug)]
enum QueryStep {
    Remove(String),
    Add {
        key: String,
        value: LineFormat,
        action: AppendAction,
    },
}

impl Mutations {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &model::Mutations) -> Result<Self, regex::Error> {
        let query = config.query_mutations.iter().map(|step| match step {
            model::QueryStep::Remove(name) => QueryStep::Remove(name.clone()),
            model::QueryStep::Add { key, value, action } => QueryStep::Add {
                key: key.clone(),
                value: LineFormat::new(value),
                action: *action,
            },
        });
        Ok(Self {
            request: steps(&config.request_mutations)?,
            request_trailers: steps(&config.request_trailers_mutations)?,
            response_trailers: steps(&config.response_trailers_mutations)?,
            query: query.collect(),
            response: steps(&config.response_mutations)?,
        })
    }

    fn change_request(&self, head: &mut RequestHead, info: &StreamInfo) {
        change_request(&self.request, head, info);
        if !self.query.is_empty()
            && let Some(path) = self.changed_query(head, info)
        {
            head.path = path;
        }
    }

    fn changed_query(&self, head: &RequestHead, info: &StreamInfo) -> Option<PathAndQuery> {
        let mut query = Query::parse(head.path.query().unwrap_or_default());
        for step in &self.query {
            match step {
                QueryStep::Remove(name) => drop(query.0.remove(name)),
                QueryStep::Add { key, value, action } => {
                    let mut text = Vec::new();
                    let entry = Entry {
                        request: Some(view(head)),
                        ..Entry::of(info)
                    };
                    value.write_value(&entry, &mut text);
                    query.add(key, &String::from_utf8_lossy(&text), *action);
                }
            }
        }
        format!("{}{}", head.path.path(), query.text()).parse().ok()
    }
}

/// Parameters by name, in the order in which Envoy writes them. Those that came stay as they came; Envoy decodes them, and then sends
/// spaces and slashes in the query as they are.
#[derive(Debug)]
struct Query(BTreeMap<String, Vec<String>>);

/// Source: Envoy `PercentEncoding::urlEncode`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = BTreeMap::<String, Vec<String>>::new();
        for parameter in text.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            query.entry(name.to_owned()).or_default().push(value.to_owned());
        }
        Self(query)
    }

    fn add(&mut self, key: &str, value: &str, action: AppendAction) {
        let value = utf8_percent_encode(value, ENCODED).to_string();
        let is_there = self.0.contains_key(key);
        match action {
            AppendAction::AppendIfExistsOrAdd => self.0.entry(key.to_owned()).or_default().push(value),
            AppendAction::AddIfAbsent if is_there => {}
            AppendAction::OverwriteIfExists if !is_there => {}
            AppendAction::AddIfAbsent
            | AppendAction::OverwriteIfExists
            | AppendAction::OverwriteIfExistsOrAdd => {
                self.0.insert(key.to_owned(), vec![value]);
            }
        }
    }

    /// With its question mark, if there is anything.
    fn text(&self) -> String {
        let mut text = String::new();
        for (name, values) in &self.0 {
            for value in values {
                text.push(if text.is_empty() { '?' } else { '&' });
                text.push_str(name);
                text.push('=');
                text.push_str(value);
            }
        }
        text
    }
}

impl HeaderMutationFilter {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(config: &model::HeaderMutation) -> Result<Self, regex::Error> {
        Ok(Self {
            own: Arc::new(Mutations::new(&config.mutations)?),
            most_specific_last: config.most_specific_last,
        })
    }

    /// Those of the filter, then those of the route's levels.
    fn all<'m>(&'m self, config: Option<&'m RouteConfig>, mut change: impl FnMut(&Arc<Mutations>)) {
        change(&self.own);
        let levels: &[Arc<Mutations>] = match config {
            Some(RouteConfig::HeaderMutation(levels)) => levels,
            _ => &[],
        };
        match self.most_specific_last {
            true => levels.iter().rev().for_each(change),
            false => levels.iter().for_each(change),
        }
    }
}

/// Whose trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trailers {
    Request,
    Response,
}

impl Mutations {
    fn of_trailers(&self, whose: Trailers) -> &[Step] {
        match whose {
            Trailers::Request => &self.request_trailers,
            Trailers::Response => &self.response_trailers,
        }
    }
}

/// Changes of trailers that are still to come.
#[derive(Debug)]
struct TrailerChange {
    stream: Rc<Stream>,
    levels: Vec<Arc<Mutations>>,
    whose: Trailers,
}

impl Transform for TrailerChange {
    fn trailers(&mut self, trailers: &mut HeaderMap) {
        let info = self.stream.info.borrow();
        let request = self.stream.request_if_any();
        let steps = self.levels.iter().flat_map(|level| level.of_trailers(self.whose));
        for step in steps {
            let has = |name: &HeaderName| trailers.contains_key(name);
            let value = step.value(has, || Entry {
                request: request.map(view),
                // As in Envoy, `%TRAILER%` is of responses.
                trailers: (self.whose == Trailers::Response).then_some(&*trailers),
                ..Entry::of(&info)
            });
            step.apply(value, trailers);
        }
    }
}

impl HeaderMutationFilter {
    /// `None`: none change.
    fn trailers(
        &self,
        stream: &Rc<Stream>,
        config: Option<&RouteConfig>,
        whose: Trailers,
    ) -> Option<TrailerChange> {
        let mut levels = Vec::new();
        self.all(config, |mutations| {
            if !mutations.of_trailers(whose).is_empty() {
                levels.push(mutations.clone());
            }
        });
        (!levels.is_empty()).then(|| TrailerChange {
            stream: stream.clone(),
            levels,
            whose,
        })
    }
}

impl Filter for HeaderMutationFilter {
    fn decode(&self, request: &mut Decoding<'_>) -> Decode {
        let info = request.stream.info.borrow();
        let head = &mut *request.head;
        self.all(request.config, |mutations| mutations.change_request(head, &info));
        drop(info);
        if let Some(change) = self.trailers(request.stream, request.config, Trailers::Request)
            && let Some(body) = request.stream.body.take()
        {
            let body = body.transformed(Box::new(change));
            request.stream.body.replace(Some(Box::new(body)));
        }
        Decode::Continue
    }

    fn encode(&self, response: &mut Encoding<'_>) {
        let trailers = self.trailers(response.stream, response.config, Trailers::Response);
        if let Some(change) = trailers {
            let body = std::mem::replace(response.body, Body::empty());
            *response.body = body.transformed(Box::new(change));
        }
        let info = response.stream.info.borrow();
        let request = response.stream.request_if_any();
        let head = &mut *response.head;
        self.all(response.config, |mutations| {
            for step in &mutations.response {
                let has = |name: &HeaderName| head.headers.contains_key(name);
                let value = step.value(has, || Entry {
                    request: request.map(view),
                    response_headers: Some(&head.headers),
                    ..Entry::of(&info)
                });
                step.apply(value, &mut head.headers);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_come_out_in_the_order_of_their_names() {
        let mut query = Query::parse("b=2&a=1&b=3&c&%20=x%2Fy");
        assert_eq!(query.text(), "?%20=x%2Fy&a=1&b=2&b=3&c=");
        query.add("b", "4", AppendAction::AddIfAbsent);
        query.add("d", "4", AppendAction::OverwriteIfExists);
        query.add("a", "4 5", AppendAction::OverwriteIfExists);
        query.add("c", "5", AppendAction::AppendIfExistsOrAdd);
        assert_eq!(query.text(), "?%20=x%2Fy&a=4%205&b=2&b=3&c=&c=5");
        assert_eq!(Query::parse("").text(), "");
    }
}
