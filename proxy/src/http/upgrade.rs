//! Which clients may change the protocol of their connection, or have a tunnel. Source: RFC 9110 §§7.8, 9.3.6; Envoy `HttpConnectionManagerConfig::
//! createUpgradeFilterChain`; docs, HTTP upgrades.
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{HeaderValue, Method, StatusCode};
use outrigger_model::hcm::Upgrade;

use super::local_reply::LocalReply;
use super::manager::{ConnectionManager, ManagerStats};
use super::route_table::{Action, Route};
use crate::codec::{Body, RequestHead, Response};
use crate::stats::Gauge;

/// A stream that may change its protocol; counted while it lasts.
#[derive(Debug)]
pub(super) struct Upgraded(Gauge);

impl Upgraded {
    fn new(stats: &ManagerStats) -> Self {
        stats.downstream_cx_upgrades_total.inc();
        stats.downstream_cx_upgrades_active.inc();
        Self(stats.downstream_cx_upgrades_active.clone())
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Asks the route, then the connection manager.
///
/// # Errors
/// The refusal: 403. What follows on the connection is not looked at, since it could be meant for the other protocol.
pub(super) fn check(
    manager: &ConnectionManager,
    route: &Route,
    head: &RequestHead,
) -> Result<Upgraded, LocalReply> {
    let wanted = match head.method {
        Method::CONNECT => Some(&b"connect"[..]),
        _ => head.headers.get(UPGRADE).map(|wanted| wanted.as_bytes()),
    };
    let of_route = match &route.action {
        Action::Forward(forward) => forward.config.upgrades.as_slice(),
        Action::Redirect(_) | Action::Direct { .. } => &[],
    };
    if wanted.is_some_and(|wanted| is_allowed(wanted, of_route, &manager.config.upgrades)) {
        return Ok(Upgraded::new(&manager.stats));
    }
    manager.stats.downstream_rq_ws_on_non_ws_route.inc();
    Err(LocalReply::new(StatusCode::FORBIDDEN, None, "upgrade_failed", "").closing())
}

/// The head asks for WebSocket.
pub(super) fn is_websocket(head: &RequestHead) -> bool {
    let wanted = head.headers.get(UPGRADE).filter(|_| head.is_upgrade);
    wanted.is_some_and(|wanted| wanted.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// The answer to an upgrade, for `%RESPONSE_CODE_DETAILS%`. Of one to a WebSocket handshake that is neither yes nor an error the client gets
/// the head alone. Source: Envoy 1.40, `UpstreamRequest::decodeHeaders`.
pub(super) fn answered(request: &RequestHead, response: &mut Response) -> &'static str {
    let status = response.head.status;
    let answers =
        status == StatusCode::SWITCHING_PROTOCOLS || status.is_client_error() || status.is_server_error();
    if answers || !is_websocket(request) {
        return "via_upstream";
    }
    response.body = Body::empty();
    response
        .head
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    "websocket_handshake_unsuccessful"
}

fn is_allowed(wanted: &[u8], of_route: &[Upgrade], of_manager: &[Upgrade]) -> bool {
    let said = |upgrades: &[Upgrade]| {
        let mut upgrades = upgrades.iter();
        upgrades
            .find(|upgrade| upgrade.protocol.as_bytes().eq_ignore_ascii_case(wanted))
            .map(|upgrade| upgrade.is_enabled)
    };
    said(of_route).or_else(|| said(of_manager)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade(protocol: &str, is_enabled: bool) -> Upgrade {
        Upgrade {
            protocol: protocol.into(),
            is_enabled,
        }
    }

    #[test]
    fn the_route_has_the_last_word() {
        let check = |of_route: &[Upgrade], of_manager: &[Upgrade], expected| {
            assert_eq!(
                is_allowed(b"WebSocket", of_route, of_manager),
                expected,
                "{of_route:?} {of_manager:?}"
            );
        };
        let (yes, no, other) = (
            upgrade("websocket", true),
            upgrade("websocket", false),
            upgrade("foo", true),
        );
        check(&[], &[], false);
        check(&[], std::slice::from_ref(&yes), true);
        check(&[], std::slice::from_ref(&no), false);
        check(std::slice::from_ref(&yes), std::slice::from_ref(&no), true);
        check(std::slice::from_ref(&no), std::slice::from_ref(&yes), false);
        check(std::slice::from_ref(&other), &[yes], true);
        check(&[other], &[], false);
    }
}
