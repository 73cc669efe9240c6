//! One question to one host: HTTP, gRPC, or bytes. Connections are not counted as the cluster's.
use std::future::pending;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use outrigger_model::access_log::FormatPart;
use outrigger_model::cluster::{HealthCheck as Config, HealthChecker, grpc_health};
use outrigger_model::route::{AppendAction, HeaderAddition};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Finding;
use crate::codec::h1::client::ClientOptions;
use crate::codec::{Body, Http2Settings, RequestHead, Response, SendError, h1, h2};
use crate::telemetry::grpc;
use crate::time;
use crate::tls::transport::Transport;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect;
use crate::upstream::endpoint::{HealthFlag, Host};

const USER_AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");
/// Of a response: this host has less than it should.
pub(crate) const DEGRADED: &str = "x-envoy-degraded";
/// Of a response: this host is to have no more requests.
pub(crate) const LEAVE_OUT: &str = "x-envoy-immediate-health-check-fail";
const GRPC_PATH: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
/// Bytes of a TCP answer that are looked at, and of a gRPC one.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const HTTP2: Http2Settings = Http2Settings {
    max_concurrent_streams: 1,
    stream_window: 65_535,
    connection_window: 65_535,
    max_header_list_bytes: 60 * 1024,
    allows_connect: false,
    header_table_bytes: None,
    keepalive: None,
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
    Tcp(Transport),
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
        // A connection that a bad answer came on is as good as before, and so is one with a stream that was reset.
        let is_over = match finding {
            Finding::TimedOut => true,
            Finding::Lost => !matches!(self.link, Some(Link::H2(_))),
            Finding::Well { .. } | Finding::Ill | Finding::Retriable => false,
        };
        if is_over || !config.reuses_connection {
            self.link = None;
        }
        finding
    }

    /// Ends when a TCP connection that is kept for the next question is closed. For HTTP, where another is made then, never.
    /// Source: Envoy `TcpActiveHealthCheckSession::onEvent`.
    pub(super) async fn lost(&mut self) {
        let Some(Link::Tcp(transport)) = &mut self.link else {
            return pending().await;
        };
        let mut unasked = [0; 1024];
        while !matches!(transport.read(&mut unasked).await, Ok(0) | Err(_)) {}
        self.link = None;
    }

    async fn ask_once(
        &mut self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        config: &Config,
    ) -> Result<Finding, Nothing> {
        match &config.checker {
            HealthChecker::Tcp { send, receive } => self.tcp(cluster, host, send, receive).await,
            HealthChecker::Http {
                host: authority,
                path,
                method,
                expected_statuses,
                retriable_statuses,
                is_http2,
                send,
                added_headers,
                removed_headers,
            } => {
                let mut head = RequestHead {
                    method: Method::from_bytes(method.as_bytes()).map_err(|_| Nothing)?,
                    path: path.parse().map_err(|_| Nothing)?,
                    ..head(cluster, host, authority)?
                };
                if !send.is_empty() {
                    head.headers
                        .insert(header::CONTENT_LENGTH, HeaderValue::from(send.len()));
                }
                for name in removed_headers {
                    head.headers.remove(name.as_str());
                }
                add(&mut head.headers, added_headers);
                let body = Bytes::copy_from_slice(send);
                let mut response = self.send(cluster, host, *is_http2, head, body).await?;
                let head = &response.head;
                let degraded = head.headers.contains_key(DEGRADED);
                let finding = judge(head.status, expected_statuses, retriable_statuses, degraded);
                let is_left_out =
                    head.headers.contains_key(LEAVE_OUT) && !matches!(finding, Finding::Well { .. });
                read(&mut response.body).await?;
                if is_left_out {
                    host.state.set(HealthFlag::ExcludedByImmediateFailure, true);
                }
                Ok(finding)
            }
            HealthChecker::Grpc {
                service,
                authority,
                metadata,
            } => {
                let mut head = RequestHead {
                    method: Method::POST,
                    path: GRPC_PATH,
                    ..head(cluster, host, authority)?
                };
                let kind = HeaderValue::from_static("application/grpc");
                head.headers.insert(header::CONTENT_TYPE, kind);
                head.headers
                    .insert(header::TE, HeaderValue::from_static("trailers"));
                head.headers
                    .insert(grpc::GRPC_TIMEOUT, grpc::timeout_value(config.timeout));
                add(&mut head.headers, metadata);
                let mut response = self
                    .send(cluster, host, true, head, grpc_question(service))
                    .await?;
                let (answer, trailers) = read(&mut response.body).await?;
                let status = trailers
                    .as_ref()
                    .unwrap_or(&response.head.headers)
                    .get(grpc::GRPC_STATUS);
                let is_ok =
                    response.head.status == StatusCode::OK && status.is_some_and(|status| status == "0");
                Ok(if is_ok && is_serving(&answer) {
                    Finding::Well { degraded: false }
                } else {
                    Finding::Ill
                })
            }
        }
    }

    /// Makes a connection unless there is one that can take a request; true: there was one.
    async fn connect(
        &mut self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        is_http2: bool,
    ) -> Result<bool, Nothing> {
        let is_ready = match &self.link {
            Some(Link::H1(client)) => client.is_ready(),
            Some(Link::H2(_)) => true,
            Some(Link::Tcp(_)) | None => false,
        };
        if is_ready {
            return Ok(true);
        }
        let transport = connect::dial(cluster, host).await.map_err(|_| Nothing)?;
        self.link = Some(match is_http2 {
            true => Link::H2(
                h2::client::handshake(transport, HTTP2, None, |_| {})
                    .await
                    .map_err(|_| Nothing)?,
            ),
            false => Link::H1(
                h1::client::handshake(transport, ClientOptions::default(), ())
                    .await
                    .map_err(|_| Nothing)?,
            ),
        });
        Ok(false)
    }

    /// A kept connection may have ended since the last question: then on another one.
    async fn send(
        &mut self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        is_http2: bool,
        head: RequestHead,
        body: Bytes,
    ) -> Result<Response, Nothing> {
        let was_kept = self.connect(cluster, host, is_http2).await?;
        let sent = self.send_once(head.clone(), body.clone()).await;
        let Err(SendError::NotSent(_)) = &sent else {
            return sent.map_err(|_| Nothing);
        };
        self.link = None;
        if !was_kept {
            return Err(Nothing);
        }
        self.connect(cluster, host, is_http2).await?;
        self.send_once(head, body).await.map_err(|_| Nothing)
    }

    async fn send_once(&mut self, head: RequestHead, body: Bytes) -> Result<Response, SendError> {
        let body = match body.is_empty() {
            true => Body::empty(),
            false => Body::full(body),
        };
        match self.link.as_mut() {
            Some(Link::H1(client)) => client.send(head, body, None).await,
            Some(Link::H2(client)) => client.send(for_http2(head), body, None).await,
            Some(Link::Tcp(_)) | None => Err(SendError::NotSent("no connection".into())),
        }
    }

    async fn tcp(
        &mut self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        send: &[u8],
        receive: &[Vec<u8>],
    ) -> Result<Finding, Nothing> {
        // Out of its place while in use: a question that is given up leaves none.
        let mut transport = match self.link.take() {
            Some(Link::Tcp(transport)) => transport,
            _ => connect::dial(cluster, host).await.map_err(|_| Nothing)?,
        };
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
        if !receive.is_empty() {
            self.link = Some(Link::Tcp(transport));
        }
        Ok(Finding::Well { degraded: false })
    }
}

/// The host's own name for checks goes before the checker's, and that before the cluster's. Source: Envoy `getHostname`.
fn head(cluster: &Cluster, host: &Host, authority: &str) -> Result<RequestHead, Nothing> {
    let own = host.config.health_check.as_deref();
    let own = own.map_or("", |config| &config.hostname);
    let names = [own, authority, &cluster.name];
    let authority = names
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_default();
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

/// The name of a cluster need not be one that may be an authority: `outbound|80||reviews`.
fn for_http2(mut head: RequestHead) -> RequestHead {
    if Authority::try_from(head.authority.as_bytes()).is_err() {
        let name = std::mem::replace(&mut head.authority, HeaderValue::from_static(""));
        head.headers.insert(header::HOST, name);
    }
    head
}

fn add(headers: &mut HeaderMap, additions: &[HeaderAddition]) {
    for addition in additions {
        let text: String = addition.value.iter().map(literal).collect();
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(addition.name.as_bytes()),
            HeaderValue::from_str(&text),
        ) else {
            continue;
        };
        let is_there = headers.contains_key(&name);
        match addition.action {
            AppendAction::AppendIfExistsOrAdd => {
                headers.append(name, value);
            }
            AppendAction::AddIfAbsent if is_there => {}
            AppendAction::OverwriteIfExists if !is_there => {}
            AppendAction::AddIfAbsent
            | AppendAction::OverwriteIfExists
            | AppendAction::OverwriteIfExistsOrAdd => {
                headers.insert(name, value);
            }
        }
    }
}

/// The model lets no command through.
fn literal(part: &FormatPart) -> &str {
    match part {
        FormatPart::Literal(text) => text,
        FormatPart::Command(_) => "",
    }
}

fn judge(status: StatusCode, expected: &[Range<u16>], retriable: &[Range<u16>], degraded: bool) -> Finding {
    let is_in = |ranges: &[Range<u16>]| ranges.iter().any(|range| range.contains(&status.as_u16()));
    if is_in(expected) {
        Finding::Well { degraded }
    } else if is_in(retriable) {
        Finding::Retriable
    } else {
        Finding::Ill
    }
}

/// The whole body, of which little is kept, and trailers.
async fn read(body: &mut Body) -> Result<(Vec<u8>, Option<HeaderMap>), Nothing> {
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| Nothing)?.into_data() {
            Ok(bytes) if data.len() < MAX_ANSWER_BYTES => data.extend_from_slice(&bytes),
            Ok(_) => {}
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}

/// One message, in front of it that it is not compressed, and its length.
fn grpc_question(service: &str) -> Bytes {
    let message = grpc_health::question(service);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

/// One message, whole and not compressed, that says so.
pub(super) fn is_serving(answer: &[u8]) -> bool {
    let Some((&[0, length @ ..], message)) = answer.split_first_chunk::<5>() else {
        return false;
    };
    let is_whole = u32::from_be_bytes(length) as usize == message.len();
    is_whole && grpc_health::is_serving(message)
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
