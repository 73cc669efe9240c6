//! Headers and query parameters that a filter changes. Source: envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto,
//! envoy/config/common/mutation_rules/v3/mutation_rules.proto.
use envoy_types::pb::envoy::config::common::mutation_rules::v3::{self as rules, header_mutation::Action};
use envoy_types::pb::envoy::config::core::v3::{self as core, key_value_append::KeyValueAppendAction};
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as pb;
use envoy_types::pb::google::protobuf::value::Kind;

use crate::access_log::{FormatPart, format};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::matcher::StringMatcher;
use crate::route::{AppendAction, HeaderAddition, header_addition, header_name};

/// The filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMutation {
    /// For all requests, before those of routes.
    pub mutations: Mutations,
    /// Those of a route are made after those of its virtual host and table; Envoy's default the other way round.
    pub most_specific_last: bool,
}

/// What changes, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mutations {
    /// Of the request.
    pub request_mutations: Vec<HeaderStep>,
    /// Of its query, after its headers.
    pub query_mutations: Vec<QueryStep>,
    /// Of the response.
    pub response_mutations: Vec<HeaderStep>,
    /// Of the request's trailers, if it has some.
    pub request_trailers_mutations: Vec<HeaderStep>,
    /// Of the response's trailers, if it has some.
    pub response_trailers_mutations: Vec<HeaderStep>,
}

/// One change of headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderStep {
    /// Headers of this name go; lower case.
    Remove(String),
    /// Headers go whose name matches.
    RemoveMatching(StringMatcher),
    /// A header comes.
    Add(HeaderAddition),
}

/// One change of the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryStep {
    /// Parameters of this name go.
    Remove(String),
    /// A parameter comes.
    Add {
        /// Its name.
        key: String,
        /// Its value, with commands.
        value: Vec<FormatPart>,
        /// What happens when it is there.
        action: AppendAction,
    },
}

impl HeaderMutation {
    /// Converts the filter.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::HeaderMutation) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HeaderMutation { supported { mutations, most_specific_header_mutations_wins } });
        Ok(Self {
            mutations: Mutations::from_proto(&at.field("mutations"), mutations.unwrap_or_default())?,
            most_specific_last: most_specific_header_mutations_wins,
        })
    }
}

impl Mutations {
    /// Converts the settings of a route.
    pub(crate) fn from_route(
        at: &FieldPath<'_>,
        proto: pb::HeaderMutationPerRoute,
    ) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::HeaderMutationPerRoute { supported { mutations } });
        Self::from_proto(&at.field("mutations"), mutations.unwrap_or_default())
    }

    fn from_proto(at: &FieldPath<'_>, proto: pb::Mutations) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::Mutations {
            supported {
                request_mutations, query_parameter_mutations, response_mutations, response_trailers_mutations,
                request_trailers_mutations,
            }
        });
        let query = query_parameter_mutations.into_iter().enumerate();
        let query = query.map(|(index, proto)| {
            QueryStep::from_proto(&at.field("query_parameter_mutations").index(index), proto)
        });
        Ok(Self {
            request_mutations: HeaderStep::list(at.field("request_mutations"), request_mutations)?,
            query_mutations: query.collect::<Result<_, _>>()?,
            response_mutations: HeaderStep::list(at.field("response_mutations"), response_mutations)?,
            request_trailers_mutations: HeaderStep::list(
                at.field("request_trailers_mutations"),
                request_trailers_mutations,
            )?,
            response_trailers_mutations: HeaderStep::list(
                at.field("response_trailers_mutations"),
                response_trailers_mutations,
            )?,
        })
    }
}

impl HeaderStep {
    /// Converts a list of them.
    pub(crate) fn list(
        at: FieldPath<'_>,
        protos: Vec<rules::HeaderMutation>,
    ) -> Result<Vec<Self>, Rejection> {
        let mut steps = Vec::with_capacity(protos.len());
        for (index, proto) in protos.into_iter().enumerate() {
            steps.extend(Self::from_proto(&at.index(index), proto)?);
        }
        Ok(steps)
    }

    /// `None`: an empty header, which is not added.
    fn from_proto(at: &FieldPath<'_>, proto: rules::HeaderMutation) -> Result<Option<Self>, Rejection> {
        verdicts!(at, proto => rules::HeaderMutation { supported { action } });
        choices!(Action { supported { Remove, Append, RemoveOnMatch } });
        Ok(match at.required(action)? {
            Action::Remove(name) => Some(Self::Remove(header_name(&at.field("remove"), &name)?)),
            Action::Append(proto) => header_addition(&at.field("append"), proto)?.map(Self::Add),
            Action::RemoveOnMatch(proto) => {
                let at = at.field("remove_on_match");
                verdicts!(at, proto => rules::header_mutation::RemoveOnMatch { supported { key_matcher } });
                let field = at.field("key_matcher");
                let matcher = StringMatcher::from_proto(&field, field.required(key_matcher)?)?;
                Some(Self::RemoveMatching(matcher))
            }
        })
    }
}

impl QueryStep {
    fn from_proto(at: &FieldPath<'_>, proto: core::KeyValueMutation) -> Result<Self, Rejection> {
        verdicts!(at, proto => core::KeyValueMutation { supported { append, remove } });
        let Some(append) = append else {
            return Ok(Self::Remove(at.field("remove").not_empty(remove)?));
        };
        let at = at.field("append");
        verdicts!(at, append => core::KeyValueAppend {
            supported { record, action }
            inert { entry: "its successor record has to be there" }
        });
        let field = at.field("record");
        verdicts!(field, field.required(record)? => core::KeyValuePair { supported { key, value } });
        let value_at = field.field("value");
        let Some(Kind::StringValue(text)) = value_at.required(value)?.kind else {
            return Err(value_at.reject("must be a string"));
        };
        Ok(Self::Add {
            key: field.field("key").not_empty(key)?,
            value: format::parse(&value_at, &text)?,
            action: match at.field("action").enumeration(action)? {
                KeyValueAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
                KeyValueAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
                KeyValueAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
                KeyValueAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
            },
        })
    }
}
