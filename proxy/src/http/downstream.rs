//! What streams and TCP proxies need to know of the connection they are on.
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
}

impl Downstream {
    /// Of a connection that begins now.
    pub(crate) fn new(info: Arc<ConnectionInfo>, tls: Option<Rc<TlsInfo>>) -> Self {
        Self {
            info,
            tls,
            limits: ConnectionLimits::default(),
        }
    }
}
