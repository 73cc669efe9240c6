//! Network filters, one file each.
pub mod istio_stats;
pub mod metadata_exchange;
pub mod mongo_proxy;
pub mod tcp_proxy;
