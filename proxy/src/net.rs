//! Sockets: the only place that names socket2, nix and uapi.
pub(crate) mod connect;
pub(crate) mod copy;
pub(crate) mod dns;
pub(crate) mod listen;
pub(crate) mod local_address;
mod options;
pub(crate) mod original_dst;
pub(crate) mod prefixed;
pub(crate) mod proxy_protocol;
