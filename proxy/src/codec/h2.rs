//! HTTP/2, by the `h2` crate on both sides.
pub(crate) mod client;
mod keepalive;
mod pump;
mod runners;
pub(crate) mod server;

/// What a client sends first. Source: RFC 9113 §3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `%RESPONSE_CODE_DETAILS%`, as Envoy's.
pub(super) const UNEXPECTED_UNDERSCORE: &str = "http2.unexpected_underscore";

/// Whether a connection that begins with `bytes` is HTTP/2; `None`: more of it must come.
pub(crate) fn begins_with_preface(bytes: &[u8]) -> Option<bool> {
    if bytes.starts_with(PREFACE) {
        Some(true)
    } else if PREFACE.starts_with(bytes) {
        None
    } else {
        Some(false)
    }
}
