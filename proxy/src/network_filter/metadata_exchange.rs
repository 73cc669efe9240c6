//! TCP metadata exchange: on mutual TLS with the agreed ALPN both sides first write who they are. Source: contract §5;
//! envoy contrib/istio/filters/network/metadata_exchange.
use std::sync::Arc;

use bytes::BytesMut;
use outrigger_model::peer::{self, TcpExchange};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stats::{Counter, Registry};
use crate::telemetry::peer::{LocalPeer, Peer};
use crate::tls::transport::Transport;

/// `metadata_exchange.*`
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub(crate) struct ExchangeStats {
    pub(crate) alpn_protocol_found: Counter,
    pub(crate) alpn_protocol_not_found: Counter,
    pub(crate) initial_header_not_found: Counter,
    pub(crate) header_not_found: Counter,
    pub(crate) metadata_added: Counter,
}

impl ExchangeStats {
    /// Registers them.
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name: &str| registry.counter(format!("metadata_exchange.{name}"));
        Self {
            alpn_protocol_found: counter("alpn_protocol_found"),
            alpn_protocol_not_found: counter("alpn_protocol_not_found"),
            initial_header_not_found: counter("initial_header_not_found"),
            header_not_found: counter("header_not_found"),
            metadata_added: counter("metadata_added"),
        }
    }
}

/// The exchange was agreed on: ALPN is the configured protocol.
pub(crate) fn agreed(protocol: &str, alpn: Option<&[u8]>, stats: &ExchangeStats) -> bool {
    let agreed = alpn == Some(protocol.as_bytes());
    if agreed {
        stats.alpn_protocol_found.inc();
    } else {
        stats.alpn_protocol_not_found.inc();
    }
    agreed
}

/// Writes our preface. The peer's is read with [`read`], which may be later: nobody waits for the other's first byte.
///
/// # Errors
/// The connection failed.
pub(crate) async fn write(transport: &mut Transport, local: &LocalPeer) -> std::io::Result<()> {
    transport.write_all(&local.tcp_preface).await?;
    transport.flush().await
}

/// Reads the peer's preface. Bytes that are none, or follow it, stay to be read. `None`: the peer sent none.
///
/// # Errors
/// The connection failed.
pub(crate) async fn read(
    transport: &mut Transport,
    stats: &ExchangeStats,
) -> std::io::Result<Option<Arc<Peer>>> {
    let mut seen = BytesMut::with_capacity(1024);
    loop {
        if transport.read_buf(&mut seen).await? == 0 {
            transport.unread(seen.freeze());
            return Ok(None);
        }
        let verdict = peer::decode_tcp(&seen).map_err(|error| {
            stats.header_not_found.inc();
            std::io::Error::other(error)
        })?;
        match verdict {
            TcpExchange::NeedMore => {}
            TcpExchange::NotMetadata => {
                stats.initial_header_not_found.inc();
                transport.unread(seen.freeze());
                return Ok(None);
            }
            TcpExchange::Found {
                consumed,
                id,
                metadata,
            } => {
                stats.metadata_added.inc();
                let _preface = seen.split_to(consumed.min(seen.len()));
                if !seen.is_empty() {
                    transport.unread(seen.freeze());
                }
                return Ok(Some(Peer::new(id, metadata)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use outrigger_model::node::Node;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::prefixed::Prefixed;
    use crate::stats::TagRules;
    use crate::telemetry::peer::LocalPeers;

    async fn pair() -> (Transport, Transport) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        let plain = |stream| Transport::plain(Prefixed::new(bytes::Bytes::new(), stream));
        (plain(one.expect("connected")), plain(other.expect("accepted").0))
    }

    fn stats() -> ExchangeStats {
        ExchangeStats::new(&Registry::new(TagRules::new(&[], false).expect("no rule")))
    }

    fn local(id: &str) -> LocalPeers {
        LocalPeers::new(Node {
            id: id.into(),
            ..Node::default()
        })
    }

    #[tokio::test]
    async fn both_sides_learn_who_the_other_is_and_the_application_sees_only_its_bytes() {
        let (mut client, mut server) = pair().await;
        let (client_stats, server_stats) = (stats(), stats());
        let client_side = async {
            write(&mut client, &local("client").with_labels(&[]))
                .await
                .expect("open");
            client.write_all(b"question").await.expect("open");
            read(&mut client, &client_stats)
                .await
                .expect("open")
                .expect("a preface")
                .id
                .clone()
        };
        let server_side = async {
            write(&mut server, &local("server").with_labels(&[]))
                .await
                .expect("open");
            let peer = read(&mut server, &server_stats)
                .await
                .expect("open")
                .expect("a preface");
            let mut seen = [0; 8];
            server
                .read_exact(&mut seen)
                .await
                .expect("the application's bytes");
            (peer.id.clone(), seen)
        };
        let (server_id, (client_id, seen)) = tokio::join!(client_side, server_side);
        assert_eq!(
            (server_id.as_str(), client_id.as_str(), &seen),
            ("server", "client", b"question")
        );
        assert_eq!(server_stats.metadata_added.value(), 1);
    }

    #[tokio::test]
    async fn bytes_that_are_no_preface_stay_to_be_read() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"hello").await.expect("open");
        let stats = stats();
        assert_eq!(read(&mut server, &stats).await.expect("open"), None);
        let mut seen = [0; 5];
        server.read_exact(&mut seen).await.expect("the bytes");
        assert_eq!((&seen, stats.initial_header_not_found.value()), (b"hello", 1));
    }

    #[tokio::test]
    async fn a_preface_that_is_too_long_ends_the_connection() {
        let (mut client, mut server) = pair().await;
        client
            .write_all(&[0x3D, 0x23, 0x04, 0x67, 0xFF, 0xFF, 0xFF, 0xFF])
            .await
            .expect("open");
        let stats = stats();
        assert!(read(&mut server, &stats).await.is_err());
        assert_eq!(stats.header_not_found.value(), 1);
    }
}
