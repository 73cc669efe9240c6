//! gRPC to a control plane, over plaintext TCP, a Unix socket, or whatever the owner's [`Connect`] makes.
//!
//! Knows connections and calls, not what is said over them. Settings as Istio's agent uses them:
//! pilot/pkg/grpc/grpc.go (windows, message size), pkg/keepalive/options.go (pings).

mod call;
mod messages;

use std::error::Error as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;
use std::{fmt, io};

use hyper_util::rt::TokioIo;
use tonic::codegen::{Service, http};
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::Address;
use crate::connect::{Connect, Counted, Plain, Traffic};
use crate::token::TokenFile;

pub(crate) use self::call::Responses;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const INITIAL_WINDOW_BYTES: u32 = 1024 * 1024;
/// 2^31 - 1, as Istio's agent.
const MAX_MESSAGE_BYTES: usize = 0x7fff_ffff;

/// What went wrong between us and the control plane. Every text names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// Not an address; another try cannot help.
    #[error("control plane address {text:?}: {reason}; give HOST:PORT or unix:PATH")]
    Address {
        /// As given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not usable as gRPC metadata; another try cannot help.
    #[error("metadata {name:?}: {reason}")]
    Metadata {
        /// As given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody there, or not willing.
    #[error("control plane {address}: connect: {reason}")]
    Connect {
        /// Whom we tried.
        address: Address,
        /// The innermost causes, joined.
        reason: String,
    },
    /// No connection in time.
    #[error("control plane {address}: no connection within {after:?}")]
    ConnectTimeout {
        /// Whom we tried.
        address: Address,
        /// The limit.
        after: Duration,
    },
    /// The owner told of resources that only a new stream can speak of.
    #[error("control plane {address}: the stream begins anew, to tell what is held")]
    Renewed {
        /// The other end.
        address: Address,
    },
    /// The stream broke or was refused.
    #[error("control plane {address}: stream ended with {code:?}: {reason}")]
    Stream {
        /// The other end.
        address: Address,
        /// gRPC status.
        code: Code,
        /// Its message and causes.
        reason: String,
    },
    /// A poll brought nothing that can be used.
    #[error("control plane {address}: POST {path}: {reason}")]
    Poll {
        /// The other end.
        address: Address,
        /// What was asked for.
        path: String,
        /// What happened.
        reason: String,
    },
    /// The control plane ended the stream without an error; istiod does so after its maximum connection age.
    #[error("control plane {address}: closed the stream")]
    Closed {
        /// The other end.
        address: Address,
    },
}

/// How to reach one control plane.
#[derive(Clone)]
pub struct Transport {
    address: Address,
    endpoint: Endpoint,
    connector: Arc<dyn Connect>,
    metadata: MetadataMap,
    token: Option<TokenFile>,
    max_message_bytes: usize,
    connect_timeout: Duration,
}

impl Transport {
    /// Prepares; nothing is connected yet. Connect timeout 10 s.
    ///
    /// # Errors
    /// [`TransportError::Address`] if the address makes no URI.
    pub fn new(address: Address) -> Result<Self, TransportError> {
        let refuse = |reason: String| TransportError::Address {
            text: address.to_string(),
            reason,
        };
        let uri = match &address {
            Address::Tcp { host, port } if host.contains(':') => format!("http://[{host}]:{port}"),
            Address::Tcp { host, port } => format!("http://{host}:{port}"),
            // Nothing but the authority of requests is made of it.
            Address::Unix(_) => "http://localhost".to_owned(),
        };
        let endpoint = Endpoint::from_shared(uri).map_err(|e| refuse(causes(&e)))?;
        let endpoint = endpoint
            .initial_stream_window_size(INITIAL_WINDOW_BYTES)
            .initial_connection_window_size(INITIAL_WINDOW_BYTES)
            .keep_alive_while_idle(true);
        let transport = Transport {
            address,
            endpoint,
            connector: Arc::new(Plain),
            metadata: MetadataMap::new(),
            token: None,
            max_message_bytes: MAX_MESSAGE_BYTES,
            connect_timeout: CONNECT_TIMEOUT,
        };
        Ok(transport
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keepalive(KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT))
    }

    /// Sends a header with every stream, such as Istio's `ClusterID`.
    ///
    /// # Errors
    /// [`TransportError::Metadata`] if name or value are not legal in a header.
    pub fn with_metadata(mut self, name: &str, value: &str) -> Result<Self, TransportError> {
        let refuse = |reason: String| TransportError::Metadata {
            name: name.to_owned(),
            reason,
        };
        let key: MetadataKey<Ascii> = name
            .to_ascii_lowercase()
            .parse()
            .map_err(|_| refuse("not a header name".to_owned()))?;
        let value: MetadataValue<Ascii> = value
            .parse()
            .map_err(|_| refuse("not the value of a header".to_owned()))?;
        self.metadata.append(key, value);
        Ok(self)
    }

    /// Limits name resolution, connect and HTTP/2 preface together.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self.endpoint = self.endpoint.connect_timeout(timeout);
        self
    }

    /// Sends `authorization: Bearer …` with every stream, read from this file each time. While the file is missing or
    /// empty the header is left out.
    #[must_use]
    pub fn with_bearer_token_file(mut self, path: PathBuf) -> Self {
        self.token = Some(TokenFile::new(path));
        self
    }

    /// Limits one response, which is held in memory whole; 2^31 - 1 unless set. One that is larger ends the stream.
    #[must_use]
    pub fn with_max_message_bytes(mut self, limit: usize) -> Self {
        self.max_message_bytes = limit;
        self
    }

    /// How often a gRPC connection is tried with a ping, and how long the answer may take; 30 s and 10 s unless set. That is how the
    /// end of a control plane is noticed whose host is gone. istiod ends connections that ping more often than every 15 s.
    #[must_use]
    pub fn with_keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.endpoint = self
            .endpoint
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
        self
    }

    /// Replaces plain sockets, for TLS and tunnels.
    #[must_use]
    pub fn with_connector(mut self, connector: Arc<dyn Connect>) -> Self {
        self.connector = connector;
        self
    }

    /// Whom this reaches.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) async fn connect(&self, traffic: &Arc<Traffic>) -> Result<Channel, TransportError> {
        let dialler = Dialler {
            address: self.address.clone(),
            connector: self.connector.clone(),
            traffic: traffic.clone(),
        };
        self.in_time(self.endpoint.connect_with_connector(dialler)).await
    }

    /// A connection without a protocol.
    pub(crate) async fn dial(&self, traffic: &Arc<Traffic>) -> Result<Counted, TransportError> {
        let stream = self.in_time(self.connector.connect(&self.address)).await?;
        Ok(Counted::new(stream, traffic.clone()))
    }

    /// What comes of an attempt to connect, if it comes within the limit.
    async fn in_time<T, E: std::error::Error + 'static>(
        &self,
        connecting: impl Future<Output = Result<T, E>>,
    ) -> Result<T, TransportError> {
        let address = || self.address.clone();
        match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(TransportError::Connect {
                address: address(),
                reason: causes(&error),
            }),
            Err(_) => Err(TransportError::ConnectTimeout {
                address: address(),
                after: self.connect_timeout,
            }),
        }
    }

    /// Largest response.
    pub(crate) fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// The headers of a call that begins now.
    pub(crate) fn metadata(&self) -> MetadataMap {
        let mut metadata = self.metadata.clone();
        if let Some(token) = self.token.as_ref().and_then(TokenFile::header) {
            metadata.insert("authorization", token);
        }
        metadata
    }

    pub(crate) fn stream_error(&self, status: &Status) -> TransportError {
        let mut reason = status.message().to_owned();
        if let Some(source) = status.source() {
            reason = format!("{reason}: {}", causes(source));
        }
        TransportError::Stream {
            address: self.address.clone(),
            code: status.code(),
            reason,
        }
    }

    pub(crate) fn renewed(&self) -> TransportError {
        TransportError::Renewed {
            address: self.address.clone(),
        }
    }

    pub(crate) fn closed(&self) -> TransportError {
        TransportError::Closed {
            address: self.address.clone(),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("address", &self.address)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// A [`Connect`] in the form that tonic wants.
struct Dialler {
    address: Address,
    connector: Arc<dyn Connect>,
    traffic: Arc<Traffic>,
}

impl Service<http::Uri> for Dialler {
    type Response = TokioIo<Counted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Counted>>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connecting = self.connector.connect(&self.address);
        let traffic = self.traffic.clone();
        Box::pin(async move { Ok(TokioIo::new(Counted::new(connecting.await?, traffic))) })
    }
}

/// The chain of causes without repeating what an outer error already says.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_host_that_makes_no_uri_is_refused() {
        let address = Address::Tcp {
            host: "a b".into(),
            port: 1,
        };
        assert!(Transport::new(address).unwrap_err().to_string().contains("a b:1"));
    }

    #[test]
    fn metadata_must_be_legal_in_a_header() {
        let transport = || Transport::new("a:1".parse().unwrap()).unwrap();
        assert!(transport().with_metadata("ClusterID", "Kubernetes").is_ok());
        let error = transport().with_metadata("authorization", "a\nb").unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"metadata "authorization": not the value of a header"#
        );
    }
}
