//! Network filters, one file each.
pub mod ext_authz;
pub mod istio_stats;
pub mod limits;
pub mod metadata_exchange;
pub mod mongo_proxy;
pub mod rbac;
pub mod tcp_proxy;
pub mod tunnel;
