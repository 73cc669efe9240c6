//! HTTP/2, by the `h2` crate on both sides.
pub(crate) mod client;
mod pump;
pub(crate) mod server;
