//! HTTP/1.1, by hyper on both sides. What hyper's server cannot answer as Envoy does is listed in docs/compat.md; its successor is a
//! machine of our own behind the same functions (ADR 0003).
pub(crate) mod client;
pub(crate) mod server;
