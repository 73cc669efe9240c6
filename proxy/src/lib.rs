//! outrigger, a sidecar proxy that istiod drives over xDS as it drives Envoy.
//!
//! Modules stand in the order in which they may know each other: each imports only what is above it (`tests/it/layering.rs`).
//! Read `listener::connection` first (the way of a connection), then `http::stream` (the way of a request).
#![forbid(unsafe_code)]

pub(crate) mod drain;
pub(crate) mod pace;
pub(crate) mod packed;
pub(crate) mod time;
pub(crate) mod worker;

pub(crate) mod net;
pub(crate) mod stats;

pub(crate) mod telemetry;

pub(crate) mod tls;

pub(crate) mod codec;

pub(crate) mod upstream;

pub(crate) mod http;

pub(crate) mod network_filter;

pub(crate) mod listener;

pub(crate) mod config;

pub(crate) mod agent;

pub(crate) mod admin;

pub(crate) mod server;

pub mod cli;

/// What must hold for any bytes of an untrusted peer; called from `fuzz/` and from tests.
pub mod fuzz {
    pub use crate::codec::h1::machine::fuzz::http1_request;
}
