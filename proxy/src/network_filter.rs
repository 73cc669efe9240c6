//! Network filters: what happens to a connection's bytes once a filter chain was chosen.
pub(crate) mod hcm;
pub(crate) mod limits;
pub(crate) mod metadata_exchange;
pub(crate) mod mongo_proxy;
pub(crate) mod tcp_proxy;
mod tunnel;
