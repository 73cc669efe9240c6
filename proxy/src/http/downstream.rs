//! What streams and TCP proxies need to know of the connection they are on.
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::filter::ConnectionLimits;
use crate::telemetry::stream_info::ConnectionInfo;
use crate::tls::info::TlsInfo;

/// Facts about a downstream connection; one a connection, shared by its streams.
#[derive(Debug)]
pub(crate) struct Downstream {
    /// Addresses, SNI, chain, what logs want of TLS.
    pub(crate) info: Arc<ConnectionInfo>,
    /// TLS facts, when TLS was terminated here.
    pub(crate) tls: Option<Rc<TlsInfo>>,
    /// Tokens of limits that are per connection.
    pub(super) limits: ConnectionLimits,
    /// What its requests are in; `None`: there was none yet.
    pub(crate) protocol: Cell<Option<http::Version>>,
    /// It ended because what came is not the protocol.
    pub(crate) is_broken: Cell<bool>,
}

impl Downstream {
    /// Of a connection that begins now.
    pub(crate) fn new(info: Arc<ConnectionInfo>, tls: Option<Rc<TlsInfo>>) -> Self {
        Self {
            info,
            tls,
            limits: ConnectionLimits::default(),
            protocol: Cell::new(None),
            is_broken: Cell::new(false),
        }
    }
}
