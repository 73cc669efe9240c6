//! `proxy-status`: what went wrong on the way (RFC 9209). Source: Envoy 1.40, `StreamInfo::ProxyStatusUtils`.
use http::{HeaderName, HeaderValue, StatusCode};
use outrigger_model::hcm::HttpConnectionManager;
use outrigger_model::hcm::extras::{ProxyStatus, Teller};

use super::lines_before;
use crate::codec::ResponseHead;
use crate::telemetry::peer::LocalPeers;
use crate::telemetry::response_flag::ResponseFlag::{self, *};
use crate::telemetry::stream_info::StreamInfo;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The error of a flag and the status that the RFC recommends; the first flag that is set counts.
const ERRORS: [(ResponseFlag, &str, u16); 22] = [
    (FailedLocalHealthCheck, "destination_unavailable", 503),
    (NoHealthyUpstream, "destination_unavailable", 503),
    (UpstreamRequestTimeout, "http_response_timeout", 504),
    (DurationTimeout, "connection_timeout", 504),
    (LocalReset, "connection_timeout", 504),
    (UpstreamRemoteReset, "connection_terminated", 502),
    (UpstreamConnectionFailure, "connection_refused", 502),
    (UnauthorizedExternalService, "connection_refused", 502),
    (UpstreamConnectionTermination, "connection_terminated", 502),
    (UpstreamOverflow, "connection_limit_reached", 503),
    (NoRouteFound, "destination_not_found", 500),
    (RateLimited, "connection_limit_reached", 503),
    (RateLimitServiceError, "connection_limit_reached", 503),
    (UpstreamRetryLimitExceeded, "destination_unavailable", 503),
    (StreamIdleTimeout, "http_response_timeout", 504),
    (InvalidEnvoyRequestHeaders, "http_request_error", 400),
    (DownstreamProtocolError, "http_request_error", 400),
    (UpstreamMaxStreamDurationReached, "http_response_timeout", 504),
    (NoFilterConfigFound, "proxy_configuration_error", 500),
    (UpstreamProtocolError, "http_protocol_error", 502),
    (NoClusterFound, "destination_unavailable", 503),
    (DnsResolutionFailed, "dns_error", 502),
];

/// How it is told.
#[derive(Debug)]
pub(super) struct Status {
    config: ProxyStatus,
    teller: String,
}

impl Status {
    pub(super) fn new(config: &ProxyStatus, manager: &HttpConnectionManager, local: &LocalPeers) -> Self {
        let teller = match &config.teller {
            Teller::Server => &manager.server_name,
            Teller::Node => local.node_id(),
            Teller::Named(name) => name,
        };
        Self {
            teller: teller.to_owned(),
            config: config.clone(),
        }
    }

    /// Tells what went wrong, if something did.
    pub(super) fn tell(&self, head: &mut ResponseHead, info: &StreamInfo) {
        let found = ERRORS.iter().find(|(flag, ..)| info.flags.contains(*flag));
        let Some((_, error, recommended)) = found else {
            return;
        };
        let mut told = lines_before(&head.headers, &PROXY_STATUS);
        told.extend_from_slice(self.teller.as_bytes());
        told.extend_from_slice(b"; error=");
        told.extend_from_slice(error.as_bytes());
        self.write_details(info, &mut told);
        if let Ok(value) = HeaderValue::from_bytes(&told) {
            head.headers.insert(PROXY_STATUS, value);
        }
        if self.config.changes_status {
            head.status = StatusCode::from_u16(*recommended).unwrap_or(head.status);
        }
    }

    fn write_details(&self, info: &StreamInfo, told: &mut Vec<u8>) {
        let Some(details) = info.response_code_details.as_deref() else {
            return;
        };
        if !self.config.shows_details {
            return;
        }
        told.extend_from_slice(b"; details=\"");
        told.extend_from_slice(details.escape_default().to_string().as_bytes());
        if let Some(why) = info.connection_termination_details.as_deref()
            && self.config.shows_termination
        {
            told.extend_from_slice(b"; ");
            told.extend_from_slice(why.escape_default().to_string().as_bytes());
        }
        if self.config.shows_flags && !info.flags.is_empty() {
            told.extend_from_slice(b"; ");
            for (index, flag) in info.flags.iter().enumerate() {
                if index > 0 {
                    told.push(b',');
                }
                told.extend_from_slice(flag.short().as_bytes());
            }
        }
        told.push(b'"');
    }
}
