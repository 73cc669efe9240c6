//! HTTP/1.1. The server side is our own: its answers to odd input are Envoy's, which no library gives. The client side is hyper's.
pub(crate) mod client;
pub(crate) mod machine;
pub(crate) mod server;
