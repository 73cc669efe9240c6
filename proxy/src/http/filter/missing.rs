//! In the place of a filter whose configuration has not come, and that has no default: nobody knows what it would have kept out.
//!
//! Source: Envoy `MissingConfigFilter`; it logs no details.
use http::StatusCode;

use super::{Decode, Decoding, Filter};
use crate::http::local_reply::LocalReply;
use crate::telemetry::response_flag::ResponseFlag;

/// Answers 500.
#[derive(Debug)]
pub(super) struct MissingFilter;

impl Filter for MissingFilter {
    fn decode(&self, _request: &mut Decoding<'_>) -> Decode {
        let flag = Some(ResponseFlag::NoFilterConfigFound);
        let reply = LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, flag, "", "");
        Decode::Reply(Box::new(reply))
    }
}
