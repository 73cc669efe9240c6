//! One proxy on a static configuration, beside Envoy on the same one. What Envoy does is what must be done.

mod clusters;
mod config_files;
mod dump;
mod edge;
mod http1;
mod limits;
mod paths;
mod redirects;
mod secret_files;
mod underscores;
mod waiting;
