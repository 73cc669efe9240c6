//! Everything towards upstreams: clusters and their hosts, choosing one, connecting, pooling.
//!
//! Shared between threads: [`cluster::Cluster`] (immutable but for its host set's cell and atomics). Per worker: [`pool`].
pub(crate) mod circuit_breaker;
pub(crate) mod cluster;
pub(crate) mod cluster_table;
pub(crate) mod connect;
pub(crate) mod dns;
pub(crate) mod endpoint;
mod happy_eyeballs;
pub(crate) mod health_check;
pub(crate) mod lb;
pub(crate) mod outlier;
pub(crate) mod pool;
pub(crate) mod slot;
pub(crate) mod stats;
pub(crate) mod upkeep;
pub(crate) mod weighted;
