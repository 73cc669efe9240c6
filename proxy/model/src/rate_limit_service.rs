//! The messages of `envoy.service.ratelimit.v3.RateLimitService`. Source: envoy/service/ratelimit/v3/rls.proto.
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor};
use envoy_types::pb::envoy::service::ratelimit::v3 as pb;
use prost::Message as _;

use crate::http_filter::rate_limit::LimitOverride;

/// What a request is: one limit of the service may be for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// Keys and values.
    pub entries: Vec<(String, String)>,
    /// In place of the service's own limit.
    pub limit: Option<LimitOverride>,
}

/// What the service says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The request is one too many.
    pub is_over: bool,
    /// Of each limit.
    pub statuses: Vec<LimitStatus>,
    /// For the response, whatever it is.
    pub response_headers: Vec<(String, String)>,
    /// For the request, if it goes on.
    pub request_headers: Vec<(String, String)>,
    /// Of the refusal.
    pub body: Vec<u8>,
}

/// How far a limit is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitStatus {
    /// This one is.
    pub is_over: bool,
    /// The limit itself, if it is told.
    pub limit: Option<CurrentLimit>,
    /// Requests that may still come.
    pub remaining: u32,
    /// Until they are as many as at first.
    pub reset_seconds: i64,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentLimit {
    /// May be empty.
    pub name: String,
    /// So many in each window.
    pub requests_per_unit: u32,
    /// How long it is; 0: not known.
    pub window_seconds: u32,
}

/// The message that asks.
pub fn question(domain: &str, descriptors: Vec<Descriptor>) -> Vec<u8> {
    let descriptors = descriptors.into_iter().map(|descriptor| RateLimitDescriptor {
        entries: descriptor
            .entries
            .into_iter()
            .map(|(key, value)| rate_limit_descriptor::Entry { key, value })
            .collect(),
        limit: descriptor
            .limit
            .map(|limit| rate_limit_descriptor::RateLimitOverride {
                requests_per_unit: limit.requests_per_unit,
                unit: limit.unit_number,
            }),
        // One hit.
        hits_addend: None,
        is_negative_hits: false,
    });
    let request = pb::RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.collect(),
        hits_addend: 0,
    };
    request.encode_to_vec()
}

/// What a message says; `None`: it is none. As in Envoy only `OVER_LIMIT` is over the limit.
pub fn answer(message: &[u8]) -> Option<Answer> {
    use pb::rate_limit_response::Code;
    let response = pb::RateLimitResponse::decode(message).ok()?;
    let over = Code::OverLimit as i32;
    let statuses = response.statuses.into_iter().map(|status| LimitStatus {
        is_over: status.code == over,
        limit: status.current_limit.map(|limit| CurrentLimit {
            requests_per_unit: limit.requests_per_unit,
            window_seconds: window_seconds(limit.unit),
            name: limit.name,
        }),
        remaining: status.limit_remaining,
        reset_seconds: status.duration_until_reset.map_or(0, |reset| reset.seconds),
    });
    Some(Answer {
        is_over: response.overall_code == over,
        statuses: statuses.collect(),
        response_headers: headers(response.response_headers_to_add),
        request_headers: headers(response.request_headers_to_add),
        body: response.raw_body,
    })
}

fn headers(protos: Vec<HeaderValue>) -> Vec<(String, String)> {
    protos
        .into_iter()
        .map(|header| (header.key, header.value))
        .collect()
}

/// Source: Envoy `XRateLimitHeaderUtils::convertRateLimitUnit`.
fn window_seconds(unit: i32) -> u32 {
    use pb::rate_limit_response::rate_limit::Unit;
    const DAY: u32 = 24 * 3600;
    match Unit::try_from(unit) {
        Ok(Unit::Second) => 1,
        Ok(Unit::Minute) => 60,
        Ok(Unit::Hour) => 3600,
        Ok(Unit::Day) => DAY,
        Ok(Unit::Week) => 7 * DAY,
        Ok(Unit::Month) => 30 * DAY,
        Ok(Unit::Year) => 365 * DAY,
        Ok(Unit::Unknown) | Err(_) => 0,
    }
}
