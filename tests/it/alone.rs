//! One proxy on a static configuration, beside Envoy on the same one. What Envoy does is what must be done.

mod balance;
mod clusters;
mod config_files;
mod connect;
mod cors;
mod dump;
mod edge;
mod extensions;
mod fault;
mod grpc_stats;
mod hash;
mod headers;
mod http1;
mod internal_redirects;
mod limits;
mod local_ratelimit;
mod matchers;
mod mirror;
mod paths;
mod proxy_protocol;
mod redirects;
mod retries;
mod scopes;
mod secret_files;
mod underscores;
mod waiting;
