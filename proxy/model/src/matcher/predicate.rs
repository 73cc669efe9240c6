//! What is looked for in a response: matchers joined by and, or, not. Source: envoy/config/common/matcher/v3/matcher.proto.
use envoy_types::pb::envoy::config::common::matcher::v3 as pb;
use envoy_types::pb::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};

use super::HeaderMatcher;
use crate::field::{FieldPath, Rejection, choices, verdicts};

/// A condition on the head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponsePredicate {
    /// One of them holds.
    Any(Vec<ResponsePredicate>),
    /// All of them hold.
    All(Vec<ResponsePredicate>),
    /// It does not hold.
    Not(Box<ResponsePredicate>),
    /// All headers match; without any it holds.
    Headers(Vec<HeaderMatcher>),
    /// Never: it is about what is not known when the head of a response comes.
    Never,
}

impl ResponsePredicate {
    /// Holds of every response.
    const ALWAYS: Self = Self::Headers(Vec::new());

    /// Converts a predicate. What is said of requests, trailers and bodies never holds, as in Envoy, which looks at the head alone.
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::MatchPredicate) -> Result<Self, Rejection> {
        choices!(Rule {
            supported { OrMatch, AndMatch, NotMatch, AnyMatch, HttpResponseHeadersMatch }
            partly {
                HttpRequestHeadersMatch: "never holds, as in Envoy: only the head of a response is looked at",
                HttpRequestTrailersMatch: "never holds, as in Envoy: only the head of a response is looked at",
                HttpResponseTrailersMatch: "never holds, as in Envoy: only the head of a response is looked at",
                HttpRequestGenericBodyMatch: "never holds, as in Envoy: only the head of a response is looked at",
                HttpResponseGenericBodyMatch: "never holds, as in Envoy: only the head of a response is looked at",
            }
        });
        verdicts!(at, proto => pb::MatchPredicate { supported { rule } });
        let unseen = |field| {
            at.field(field)
                .problem("never holds: only the head of a response is looked at");
            Ok(Self::Never)
        };
        match rule {
            Some(Rule::OrMatch(set)) => Ok(Self::Any(rules(&at.field("or_match"), set)?)),
            Some(Rule::AndMatch(set)) => Ok(Self::All(rules(&at.field("and_match"), set)?)),
            Some(Rule::NotMatch(proto)) => {
                let rule = Self::from_proto(&at.field("not_match"), *proto)?;
                Ok(Self::Not(Box::new(rule)))
            }
            Some(Rule::AnyMatch(true)) => Ok(Self::ALWAYS),
            Some(Rule::AnyMatch(false)) => Err(at.field("any_match").reject("must be true")),
            Some(Rule::HttpResponseHeadersMatch(proto)) => {
                let at = at.field("http_response_headers_match");
                verdicts!(at, proto => pb::HttpHeadersMatch { supported { headers } });
                Ok(Self::Headers(HeaderMatcher::list(at.field("headers"), headers)?))
            }
            Some(Rule::HttpRequestHeadersMatch(_)) => unseen("http_request_headers_match"),
            Some(Rule::HttpRequestTrailersMatch(_)) => unseen("http_request_trailers_match"),
            Some(Rule::HttpResponseTrailersMatch(_)) => unseen("http_response_trailers_match"),
            Some(Rule::HttpRequestGenericBodyMatch(_)) => unseen("http_request_generic_body_match"),
            Some(Rule::HttpResponseGenericBodyMatch(_)) => unseen("http_response_generic_body_match"),
            None => Err(at.reject("is empty: write what is looked for, such as http_response_headers_match")),
        }
    }
}

fn rules(at: &FieldPath<'_>, proto: MatchSet) -> Result<Vec<ResponsePredicate>, Rejection> {
    verdicts!(at, proto => MatchSet { supported { rules } });
    let field = at.field("rules");
    if rules.len() < 2 {
        return Err(field.reject(format!(
            "has {} of the 2 or more rules that it joins",
            rules.len()
        )));
    }
    rules
        .into_iter()
        .enumerate()
        .map(|(index, proto)| ResponsePredicate::from_proto(&field.index(index), proto))
        .collect()
}
