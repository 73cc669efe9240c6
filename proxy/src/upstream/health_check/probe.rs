//! One question to one host: HTTP, gRPC, or bytes. Connections are not counted as the cluster's.
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use outrigger_model::cluster::{HealthCheck as Config, HealthChecker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Finding;
use crate::codec::h1::client::ClientOptions;
use crate::codec::{Body, Http2Settings, RequestHead, Response, h1, h2};
use crate::telemetry::grpc::GRPC_STATUS;
use crate::time;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect;
use crate::upstream::endpoint::Host;

const USER_AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");
const DEGRADED: &str = "x-envoy-degraded";
const GRPC_PATH: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
/// `HealthCheckResponse { status: SERVING }`. Source: grpc/health/v1/health.proto.
const SERVING: &[u8] = &[0x08, 0x01];
/// Bytes of a TCP answer that are looked at.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const HTTP2: Http2Settings = Http2Settings {
    max_concurrent_streams: 1,
    stream_window: 65_535,
    connection_window: 65_535,
    max_header_list_bytes: 60 * 1024,
    allows_connect: false,
};

/// Asks; keeps the connection where that is wanted.
#[derive(Debug, Default)]
pub(super) struct Probe {
    link: Option<Link>,
}

#[derive(Debug)]
enum Link {
    H1(h1::client::Client),
    H2(h2::client::Client),
}

/// Nothing came, or nothing that can be read.
struct Nothing;

impl Probe {
    pub(super) async fn ask(&mut self, cluster: &Arc<Cluster>, host: &Arc<Host>, config: &Config) -> Finding {
        let asked = time::within(Some(config.timeout), self.ask_once(cluster, host, config)).await;
        let finding = match asked {
            Ok(Ok(finding)) => finding,
            Ok(Err(Nothing)) => Finding::Lost,
            Err(time::Elapsed) => Finding::TimedOut,
        };
        if !config.reuses_connection || !matches!(finding, Finding::Well { .. }) {
            self.link = None;
        }
        finding
    }

    async fn ask_once(
        &mut self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        config: &Config,
    ) -> Result<Finding, Nothing> {
        match &config.checker {
            HealthChecker::Tcp { send, receive } => tcp(cluster, host, config, send, receive).await,
            HealthChecker::Http {
                host: authority,
                path,
                method,
                expected_statuses,
                retriable_statuses,
                is_http2,
            } => {
                let head = RequestHead {
                    method: Method::from_bytes(method.as_bytes()).map_err(|_| Nothing)?,
                    path: path.parse().map_err(|_| Nothing)?,
                    ..head(cluster, authority)?
                };
                self.connect(cluster, host, config, *is_http2).await?;
                let mut response = self.send(head, Body::empty()).await?;
                let degraded = response.head.headers.contains_key(DEGRADED);
                read(&mut response.body).await?;
                Ok(judge(
                    response.head.status,
                    expected_statuses,
                    retriable_statuses,
                    degraded,
                ))
            }
            HealthChecker::Grpc { service, authority } => {
                let mut head = RequestHead {
                    method: Method::POST,
                    path: GRPC_PATH,
                    ..head(cluster, authority)?
                };
                let grpc = HeaderValue::from_static("application/grpc");
                head.headers.insert(header::CONTENT_TYPE, grpc);
                head.headers
                    .insert(header::TE, HeaderValue::from_static("trailers"));
                self.connect(cluster, host, config, true).await?;
                let mut response = self.send(head, Body::full(grpc_question(service))).await?;
                let degraded = response.head.headers.contains_key(DEGRADED);
                let (answer, trailers) = read(&mut response.body).await?;
                let status = trailers
                    .as_ref()
                    .unwrap_or(&response.head.headers)
                    .get(GRPC_STATUS);
                let is_ok =
                    response.head.status == StatusCode::OK && status.is_some_and(|status| status == "0");
                let is_serving = answer.get(5..) == Some(SERVING);
                Ok(if is_ok && is_serving {
                    Finding::Well { degraded }
                } else {
                    Finding::Ill
                })
            }
        }
    }

    /// A connection that can take a request.
    async fn connect(
        &mut self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        config: &Config,
        is_http2: bool,
    ) -> Result<(), Nothing> {
        let is_ready = match &self.link {
            Some(Link::H1(client)) => client.is_ready(),
            Some(Link::H2(_)) => true,
            None => false,
        };
        if is_ready {
            return Ok(());
        }
        let transport = connect::dial(cluster, host, config.alt_port)
            .await
            .map_err(|_| Nothing)?;
        self.link = Some(match is_http2 {
            true => Link::H2(
                h2::client::handshake(transport, HTTP2, || {})
                    .await
                    .map_err(|_| Nothing)?,
            ),
            false => Link::H1(
                h1::client::handshake(transport, ClientOptions::default(), ())
                    .await
                    .map_err(|_| Nothing)?,
            ),
        });
        Ok(())
    }

    async fn send(&mut self, head: RequestHead, body: Body) -> Result<Response, Nothing> {
        let response = match self.link.as_mut() {
            Some(Link::H1(client)) => client.send(head, body, None).await,
            Some(Link::H2(client)) => client.send(head, body, None).await,
            None => return Err(Nothing),
        };
        response.map_err(|_| Nothing)
    }
}

fn head(cluster: &Cluster, authority: &str) -> Result<RequestHead, Nothing> {
    let authority = if authority.is_empty() {
        &cluster.name
    } else {
        authority
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, USER_AGENT);
    Ok(RequestHead {
        method: Method::GET,
        path: PathAndQuery::from_static("/"),
        authority: HeaderValue::from_str(authority).map_err(|_| Nothing)?,
        scheme: "http",
        version: Version::HTTP_11,
        headers,
        is_upgrade: false,
    })
}

fn judge(status: StatusCode, expected: &[Range<u16>], retriable: &[Range<u16>], degraded: bool) -> Finding {
    let is_in = |ranges: &[Range<u16>]| ranges.iter().any(|range| range.contains(&status.as_u16()));
    if is_in(expected) {
        Finding::Well { degraded }
    } else if is_in(retriable) {
        Finding::Lost
    } else {
        Finding::Ill
    }
}

/// The whole body, of which little is kept, and trailers.
async fn read(body: &mut Body) -> Result<(Vec<u8>, Option<HeaderMap>), Nothing> {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Nothing)?.into_data() {
            Ok(bytes) if data.len() < 1024 => data.extend_from_slice(&bytes),
            Ok(_) => {}
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}

/// `HealthCheckRequest { service }` as a gRPC message.
fn grpc_question(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 16);
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

async fn tcp(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    config: &Config,
    send: &[u8],
    receive: &[Vec<u8>],
) -> Result<Finding, Nothing> {
    let mut transport = connect::dial(cluster, host, config.alt_port)
        .await
        .map_err(|_| Nothing)?;
    transport.write_all(send).await.map_err(|_| Nothing)?;
    let mut answer = Vec::new();
    while !has_all(&answer, receive) {
        let mut buffer = [0; 4096];
        let count = transport.read(&mut buffer).await.map_err(|_| Nothing)?;
        if count == 0 || answer.len() > MAX_ANSWER_BYTES {
            return Err(Nothing);
        }
        answer.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(Finding::Well { degraded: false })
}

/// Each block is somewhere after the one before it. Source: Envoy docs, L3/L4 health checking.
pub(super) fn has_all(answer: &[u8], blocks: &[Vec<u8>]) -> bool {
    let mut rest = answer;
    blocks.iter().filter(|block| !block.is_empty()).all(|block| {
        let Some(place) = rest
            .windows(block.len())
            .position(|window| window == block.as_slice())
        else {
            return false;
        };
        rest = rest.get(place + block.len()..).unwrap_or_default();
        true
    })
}
