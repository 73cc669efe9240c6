//! TLS on both sides of the proxy: handshakes, certificates, the peer's identity.
//!
//! The only module that names rustls. Contexts ([`server::ServerContext`], [`client::ClientContext`]) are immutable and built on the control
//! thread from the model and from secrets; workers share them behind an `Arc` and call `accept` or `connect`. A new secret or
//! a new rule means a new context, which also forgets every session that could be resumed. Knows no cluster, listener or
//! counter: refusals come back as [`error::HandshakeError`], which says what to count and what to log.
//!
//! Behaviour follows Envoy 1.40 (checked against its binary); the differences:
//! - a leaf certificate with `CA:TRUE` is refused unless it is itself a trusted certificate (webpki; Envoy accepts it);
//! - the depth in "certificate verification error at depth N" is always 0;
//! - an SNI is sent in lower case and without a trailing dot, one that is an IP address is not sent;
//! - cipher suites without forward secrecy do not exist.

pub(crate) mod client;
pub(crate) mod client_hello;
pub(crate) mod cluster;
pub(crate) mod distinguished_name;
pub(crate) mod error;
pub(crate) mod info;
mod provider;
pub(crate) mod secret;
pub(crate) mod server;
pub(crate) mod stream;
pub(crate) mod transport;
pub(crate) mod verify;

#[cfg(test)]
mod tests;

pub(crate) use client::ConnectionOptions;
pub(crate) use cluster::{ClientMaterial, ClientSecrets, ClientTls};
pub(crate) use error::{ContextError, SslCounter};
pub(crate) use info::TlsInfo;
pub(crate) use secret::CertifiedMaterial;
pub(crate) use server::ServerContext;
pub(crate) use verify::PeerRules;
