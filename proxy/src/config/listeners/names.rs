//! What a listener's configuration names: its chains, and the routes that they need.
use outrigger_model::bootstrap::ConfigSource;
use outrigger_model::filter_chain::{FilterChain, TerminalFilter};
use outrigger_model::hcm::RouteSource;
use outrigger_model::listener::Listener as ListenerConfig;
use outrigger_model::scoped_routes::ScopedRoutes;

use crate::config::secrets;

/// A private key is written in a TLS context of the listener.
pub(in crate::config) fn holds_key(config: &ListenerConfig) -> bool {
    let mut tls = chains(config).filter_map(|chain| chain.tls.as_ref());
    tls.any(|tls| secrets::holds_key(&tls.common))
}

pub(in crate::config) fn chains(config: &ListenerConfig) -> impl Iterator<Item = &FilterChain> {
    config.filter_chains.iter().chain(&config.default_filter_chain)
}

pub(super) fn scoped(config: &ListenerConfig) -> impl Iterator<Item = &ScopedRoutes> {
    chains(config).filter_map(|chain| match &chain.terminal {
        TerminalFilter::Http(http) => match &http.routes {
            RouteSource::Scoped(routes) => Some(&**routes),
            RouteSource::Rds { .. } | RouteSource::Inline(_) => None,
        },
        TerminalFilter::TcpProxy(_) => None,
    })
}

pub(super) fn rds_names(config: &ListenerConfig) -> impl Iterator<Item = (String, ConfigSource)> {
    chains(config).filter_map(|chain| match &chain.terminal {
        TerminalFilter::Http(http) => match &http.routes {
            RouteSource::Rds { name, source } => Some((name.clone(), source.clone())),
            _ => None,
        },
        TerminalFilter::TcpProxy(_) => None,
    })
}
