//! What a configuration means: immutable, validated values with Envoy's defaults applied.
//!
//! The only place where Envoy's configuration protobufs are spoken: every message is destructured completely and each field gets a
//! verdict (`supported`, `inert` with a reason, `unsupported`). Knows no socket, clock, task or counter; other resources are named, never held.
//! Start at [`listener::Listener`], [`cluster::Cluster`], [`route::RouteTableConfig`]; conversions are the `from_proto`
//! beside each type, and [`decode`] is where they are called from.
#![forbid(unsafe_code)]
// Fields that Envoy has deprecated get verdicts like any other.
#![allow(deprecated)]

pub mod access_log;
pub mod address;
mod any;
pub mod bootstrap;
mod cel;
pub mod cluster;
pub mod decode;
pub mod document;
pub mod dump;
pub mod endpoint;
mod extension;
pub mod field;
pub mod filter_chain;
pub mod fraction;
pub mod hcm;
pub mod http_filter;
mod istio;
pub mod listener;
pub mod matcher;
pub mod metadata;
pub mod nds;
pub mod network_filter;
pub mod node;
pub mod peer;
pub mod proxy_config;
pub mod proxy_protocol;
pub mod rate_limit_service;
pub mod rbac;
pub mod readiness;
pub mod route;
mod scalar;
pub mod scoped_routes;
pub mod secret;
pub mod service;
pub mod socket;
pub mod tls;
pub mod tracing;
pub mod validate;
mod wire;

#[cfg(test)]
mod tests;
