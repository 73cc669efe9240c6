//! When requests of a route are sent again, with its matchers ready. Source: Envoy 1.40, `RetryPolicyImpl`.
use outrigger_model::matcher::HeaderMatcher as HeaderConfig;
use outrigger_model::route as model;

use crate::codec::{RequestHead, ResponseHead};
use crate::http::matcher::HeaderMatcher;

/// A retry policy that asks for something.
#[derive(Debug, Clone)]
pub(crate) struct Retries {
    /// What is not in the matchers.
    pub(crate) policy: model::RetryPolicy,
    response: Vec<HeaderMatcher>,
    request: Vec<HeaderMatcher>,
}

impl Retries {
    /// # Errors
    /// A regular expression does not compile.
    pub(in crate::http) fn new(policy: Option<&model::RetryPolicy>) -> Result<Option<Self>, regex::Error> {
        let compiled =
            |headers: &[_]| -> Result<Vec<_>, _> { headers.iter().map(HeaderMatcher::new).collect() };
        let compile = |policy: &model::RetryPolicy| {
            Ok(Self {
                response: compiled(&policy.retriable_headers)?,
                request: compiled(&policy.retriable_request_headers)?,
                policy: policy.clone(),
            })
        };
        policy.map(compile).transpose()
    }

    /// With what a request asks for besides. Such headers are only sought by name.
    pub(in crate::http) fn with(
        mut self,
        on: model::RetryOn,
        most: Option<u32>,
        codes: &[u16],
        headers: impl Iterator<Item = HeaderConfig>,
    ) -> Self {
        self.policy.retry_on |= on;
        self.policy.num_retries = most.unwrap_or(self.policy.num_retries);
        self.policy.retriable_status_codes.extend_from_slice(codes);
        // None of them has an expression.
        self.response
            .extend(headers.filter_map(|header| HeaderMatcher::new(&header).ok()));
        self
    }

    /// The policy is meant for this request.
    pub(crate) fn wants(&self, head: &RequestHead) -> bool {
        self.policy.retry_on != model::RetryOn::default()
            && (self.request.is_empty() || self.request.iter().any(|header| header.matches(head)))
    }

    /// A header of the response asks for another attempt (`retriable-headers`).
    pub(crate) fn is_retriable(&self, head: &ResponseHead) -> bool {
        self.response.iter().any(|header| header.matches_response(head))
    }
}
