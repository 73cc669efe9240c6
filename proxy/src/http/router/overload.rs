//! Requests that are refused for the sake of a cluster's hosts: as many as its endpoints' policy says.
//!
//! Source: endpoint.proto `drop_overloads`; Envoy `Router::Filter::checkDropOverload`; beside Envoy 1.40 in tests/it/alone/drops.rs.
use std::rc::Rc;

use http::{HeaderName, HeaderValue, StatusCode};
use outrigger_model::fraction::Fraction;

use crate::http::filter::draws;
use crate::http::local_reply::LocalReply;
use crate::http::stream::Stream;
use crate::telemetry::response_flag::ResponseFlag;
use crate::upstream::cluster::Cluster;

const ALL: HeaderName = HeaderName::from_static("x-envoy-unconditional-drop-overload");
const SOME: HeaderName = HeaderName::from_static("x-envoy-drop-overload");

/// The reply to a request that is one of them. A load and a branch if there are none.
#[inline]
pub(super) fn refused(stream: &Rc<Stream>, cluster: &Cluster) -> Option<LocalReply> {
    match cluster.dropped() {
        Fraction::NONE => None,
        share => draw(stream, cluster, share),
    }
}

#[cold]
fn draw(stream: &Rc<Stream>, cluster: &Cluster, share: Fraction) -> Option<LocalReply> {
    if !draws(share, &mut stream.random.borrow_mut()) {
        return None;
    }
    let (flag, details, text, header) = match share {
        Fraction::ALL => (
            ResponseFlag::UnconditionalDropOverload,
            "unconditional_drop_overload",
            "unconditional drop overload",
            ALL,
        ),
        _ => (ResponseFlag::DropOverload, "drop_overload", "drop overload", SOME),
    };
    let status = StatusCode::SERVICE_UNAVAILABLE;
    cluster.stats.response(status);
    let mut reply = LocalReply::new(status, Some(flag), details, text);
    if !stream.manager.config.router.suppress_envoy_headers {
        reply.headers.push((header, HeaderValue::from_static("true")));
    }
    Some(reply)
}
