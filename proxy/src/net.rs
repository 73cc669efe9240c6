//! Sockets: the only place that names socket2 and nix.
pub(crate) mod connect;
pub(crate) mod copy;
pub(crate) mod dns;
pub(crate) mod listen;
pub(crate) mod local_address;
pub(crate) mod original_dst;
pub(crate) mod prefixed;
pub(crate) mod proxy_protocol;
