//! Handshakes between our two sides, with certificates as Istio makes them, and with peers that misbehave.
#![allow(clippy::unwrap_used)]

mod authority;
mod refusal;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use outrigger_model::matcher::Pattern;
use outrigger_model::secret::{DataSource, ValidationContext};
use outrigger_model::tls::{CipherSuite, KeyExchangeGroup, SanKind, TlsVersion};
use rcgen::SanType;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use self::authority::{Authority, BILL, BILL_SNI, FRONT, Leaf, common, downstream, rules, upstream};
use super::client::{ClientContext, ConnectionOptions};
use super::error::{ContextError, HandshakeError, SslCounter, VerifyFailure};
use super::info::TlsInfo;
use super::server::ServerContext;
use super::verify::PeerRules;

type Outcome = (Result<TlsInfo, HandshakeError>, Result<TlsInfo, HandshakeError>);

/// Two parties that agree; tests change one thing.
struct Scene {
    authority: Authority,
    server_leaf: Leaf,
    client_leaf: Option<Leaf>,
    server_rules: Option<ValidationContext>,
    client_rules: Option<ValidationContext>,
    downstream: outrigger_model::tls::DownstreamTls,
    upstream: outrigger_model::tls::UpstreamTls,
    wanted: Wanted,
}

/// [`ConnectionOptions`], owned.
#[derive(Default)]
struct Wanted {
    alpn: Option<Vec<Vec<u8>>>,
    fallback_alpn: Option<&'static [u8]>,
    server_name: Option<Arc<str>>,
    required_name: Option<Arc<str>>,
}

impl Wanted {
    fn options(&self) -> ConnectionOptions<'_> {
        ConnectionOptions {
            alpn: self.alpn.as_deref(),
            fallback_alpn: self.fallback_alpn,
            host_name: "",
            server_name: self.server_name.as_ref(),
            required_name: self.required_name.as_ref(),
        }
    }
}

impl Scene {
    fn new() -> Self {
        let authority = Authority::new();
        Self {
            server_leaf: Leaf::spiffe(BILL),
            client_leaf: Some(Leaf::spiffe(FRONT)),
            server_rules: Some(authority.trusts(&[Pattern::Prefix("spiffe://cluster.local/".into())])),
            client_rules: Some(authority.trusts(&[Pattern::Exact(BILL.into())])),
            authority,
            downstream: downstream(),
            upstream: upstream(),
            wanted: Wanted::default(),
        }
    }

    fn contexts(&self) -> (ServerContext, ClientContext) {
        let judge = |context: &Option<ValidationContext>| context.as_ref().map(rules).unwrap_or_default();
        let server = self.authority.issue(&self.server_leaf).material();
        let client = self
            .client_leaf
            .as_ref()
            .map(|leaf| self.authority.issue(leaf).material());
        (
            ServerContext::build(&self.downstream, &server, &judge(&self.server_rules)).unwrap(),
            ClientContext::build(&self.upstream, client.as_ref(), &judge(&self.client_rules)).unwrap(),
        )
    }

    /// Server's and client's view of one handshake and an exchange of one byte each way.
    async fn run(&self) -> Outcome {
        let (server, client) = self.contexts();
        exchange(&server, &client, &self.wanted.options(), duplex(16_384)).await
    }
}

async fn exchange(
    server: &ServerContext,
    client: &ClientContext,
    options: &ConnectionOptions<'_>,
    (near, far): (
        impl AsyncRead + AsyncWrite + Unpin,
        impl AsyncRead + AsyncWrite + Unpin,
    ),
) -> Outcome {
    let serve = async {
        let (mut stream, info) = server.accept(far).await?;
        let byte = stream.read_u8().await.map_err(HandshakeError::from_io)?;
        stream.write_u8(byte).await.map_err(HandshakeError::from_io)?;
        stream.shutdown().await.map_err(HandshakeError::from_io)?;
        Ok(info)
    };
    let call = async {
        let (mut stream, info) = client.connect(near, options).await?;
        // A server that refuses our certificate may be gone before we write; what it said waits to be read.
        let _ = stream.write_u8(7).await;
        let _ = stream.flush().await;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .await
            .map_err(HandshakeError::from_io)?;
        assert_eq!(answer, [7]);
        Ok(info)
    };
    tokio::join!(serve, call)
}

#[tokio::test]
async fn both_sides_know_each_other_by_spiffe_id() {
    for rsa in [false, true] {
        let mut scene = Scene::new();
        scene.server_leaf.rsa = rsa;
        let (server, client) = scene.run().await;
        let (server, client) = (server.unwrap(), client.unwrap());
        assert_eq!(
            (server.version, server.cipher, server.group),
            ("TLSv1.3", "TLS_AES_128_GCM_SHA256", "X25519")
        );
        assert_eq!(server.server_name.as_deref(), Some(BILL_SNI));
        assert_eq!(client.server_name.as_deref(), Some(BILL_SNI));
        let (front, bill) = (server.peer.as_ref().unwrap(), client.peer.as_ref().unwrap());
        assert_eq!(front.uri_sans().collect::<Vec<_>>(), [FRONT]);
        assert_eq!(bill.uri_sans().collect::<Vec<_>>(), [BILL]);
        assert_eq!(
            (front.subject.as_str(), front.issuer.as_str()),
            ("", "O=cluster.local")
        );
        assert_eq!(front.serial_hex, "ab");
        assert_eq!(server.local.as_ref().unwrap().sha256_hex, bill.sha256_hex);
        assert!(server.counters().eq([SslCounter::Handshake]));
    }
}

#[tokio::test]
async fn handshake_goes_on_without_alpn_when_none_is_common() {
    let (server, client) = Scene::new().run().await;
    assert_eq!((server.unwrap().alpn, client.unwrap().alpn), (None, None));
}

#[tokio::test]
async fn a_context_without_alpn_offers_what_the_pool_speaks() {
    let check = async |configured: &[&str], expected: &[u8]| {
        let mut scene = Scene::new();
        scene.downstream.common.alpn_protocols = vec!["h2".into(), "http/1.1".into()];
        scene.upstream.common.alpn_protocols = configured.iter().map(|name| (*name).to_owned()).collect();
        scene.wanted.fallback_alpn = Some(b"h2");
        assert_eq!(scene.run().await.0.unwrap().alpn.as_deref(), Some(expected));
    };
    check(&[], b"h2").await;
    check(&["http/1.1"], b"http/1.1").await;
}

#[tokio::test]
async fn a_request_brings_the_name_that_is_sent_and_asked_for() {
    let check = async |sent: Option<&str>, required: Option<&str>, expected: Result<Option<&str>, ()>| {
        let mut scene = Scene::new();
        let names = ["a.example", "*.b.example"].map(|name| SanType::DnsName(name.try_into().unwrap()));
        scene.server_leaf.sans.extend(names);
        scene
            .server_leaf
            .sans
            .push(SanType::IpAddress([10, 0, 0, 1].into()));
        scene.wanted.server_name = sent.map(Arc::from);
        scene.wanted.required_name = required.map(Arc::from);
        let (served, called) = scene.run().await;
        assert_eq!(called.is_ok(), expected.is_ok(), "{sent:?} {required:?}");
        if let Ok(expected) = expected {
            assert_eq!(
                served.unwrap().server_name.as_deref(),
                expected,
                "{sent:?} {required:?}"
            );
        }
    };
    check(None, None, Ok(Some(BILL_SNI))).await;
    check(Some("a.example"), None, Ok(Some("a.example"))).await;
    check(Some("other.example"), None, Ok(Some("other.example"))).await;
    check(Some("a.example"), Some("a.example"), Ok(Some("a.example"))).await;
    check(Some("x.b.example"), Some("x.b.example"), Ok(Some("x.b.example"))).await;
    check(Some("other.example"), Some("other.example"), Err(())).await;
    check(Some("x.y.b.example"), Some("x.y.b.example"), Err(())).await;
    check(None, Some("a.example"), Ok(Some(BILL_SNI))).await;
    check(None, Some("other.example"), Err(())).await;
    // An address is no server name, but a certificate may be for one.
    check(Some("10.0.0.1"), Some("10.0.0.1"), Ok(Some(BILL_SNI))).await;
    check(Some("10.0.0.2"), Some("10.0.0.2"), Err(())).await;
}

#[tokio::test]
async fn a_resumed_session_is_of_the_name_that_is_required() {
    let mut scene = Scene::new();
    scene
        .server_leaf
        .sans
        .push(SanType::DnsName("a.example".try_into().unwrap()));
    let (server, client) = scene.contexts();
    let run = async |required: &str| {
        let wanted = Wanted {
            required_name: Some(required.into()),
            ..Wanted::default()
        };
        exchange(&server, &client, &wanted.options(), duplex(16_384))
            .await
            .1
    };
    for _ in 0..2 {
        run("a.example").await.unwrap();
        run("other.example").await.unwrap_err();
    }
}

#[tokio::test]
async fn alpn_of_a_request_replaces_the_configured_list() {
    let mut scene = Scene::new();
    scene.wanted.alpn = Some(vec![
        b"istio-http/1.1".to_vec(),
        b"istio".to_vec(),
        b"http/1.1".to_vec(),
    ]);
    let (server, client) = scene.run().await;
    assert_eq!(server.unwrap().alpn.as_deref(), Some(&b"http/1.1"[..]));
    assert_eq!(client.unwrap().alpn.as_deref(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn server_order_decides_the_protocol() {
    let mut scene = Scene::new();
    scene.wanted.alpn = Some(vec![b"http/1.1".to_vec(), b"h2".to_vec()]);
    assert_eq!(scene.run().await.0.unwrap().alpn.as_deref(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn no_sni_is_sent_when_none_is_configured() {
    let mut scene = Scene::new();
    scene.upstream.sni = None;
    let (server, client) = scene.run().await;
    assert_eq!(
        (server.unwrap().server_name, client.unwrap().server_name),
        (None, None)
    );
}

#[tokio::test]
async fn client_certificate_can_be_optional() {
    let mut scene = Scene::new();
    scene.downstream.require_client_certificate = false;
    scene.server_rules = Some(scene.authority.trusts(&[]));
    assert!(scene.run().await.0.unwrap().peer.is_some());
    scene.client_leaf = None;
    let info = scene.run().await.0.unwrap();
    assert!(
        info.counters()
            .eq([SslCounter::Handshake, SslCounter::NoCertificate])
    );
}

#[tokio::test]
async fn nothing_is_verified_without_a_trusted_ca() {
    let mut scene = Scene::new();
    scene.server_leaf.years = (2000, 2001);
    scene.client_rules = None;
    scene.server_rules = None;
    let (server, client) = scene.run().await;
    assert!(
        server.unwrap().peer.is_none(),
        "no certificate is asked for, as Envoy"
    );
    assert_eq!(client.unwrap().peer.unwrap().uri_sans().next(), Some(BILL));
}

#[tokio::test]
async fn names_of_every_type_can_be_matched() {
    let names = [
        ("x.b.example", true),
        ("*.b.example", true),
        ("A.Example", true),
        ("y.x.b.example", false),
        ("b.example", false),
        ("10.0.0.1", true),
        ("x@y.z", true),
        ("spiffe://cluster.local", false),
    ];
    let mut scene = Scene::new();
    scene.server_leaf.sans = vec![
        SanType::URI(BILL.try_into().unwrap()),
        SanType::DnsName("a.example".try_into().unwrap()),
        SanType::DnsName("*.b.example".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 1].into()),
        SanType::Rfc822Name("x@y.z".try_into().unwrap()),
    ];
    for (name, accepted) in names {
        scene.client_rules = Some(scene.authority.trusts(&[Pattern::Exact(name.into())]));
        assert_eq!(scene.run().await.1.is_ok(), accepted, "{name}");
    }
    let patterns = [
        (Pattern::Suffix("/bill-service".into()), true),
        (Pattern::Contains("/ns/default/".into()), true),
        (Pattern::Regex("spiffe://.*/sa/bill-[a-z]+".into()), true),
        (Pattern::Regex("spiffe://.*/sa/bill".into()), false),
    ];
    for (pattern, accepted) in patterns {
        scene.client_rules = Some(scene.authority.trusts(std::slice::from_ref(&pattern)));
        assert_eq!(scene.run().await.1.is_ok(), accepted, "{pattern:?}");
    }
    for (kind, accepted) in [
        (SanKind::Uri, true),
        (SanKind::Dns, false),
        (SanKind::Ip, false),
        (SanKind::Email, false),
    ] {
        let mut context = scene.authority.trusts(&[Pattern::Exact(BILL.into())]);
        context.match_subject_alt_names[0].kind = Some(kind);
        scene.client_rules = Some(context);
        assert_eq!(scene.run().await.1.is_ok(), accepted, "{kind:?}");
    }
    let mut context = scene
        .authority
        .trusts(&[Pattern::Exact(BILL.to_ascii_uppercase())]);
    context.match_subject_alt_names[0].name.ignore_case = true;
    scene.client_rules = Some(context);
    scene.run().await.1.unwrap();
}

#[tokio::test]
async fn a_peer_may_be_trusted_by_its_own_certificate() {
    let mut scene = Scene::new();
    let bill = scene.authority.issue(&scene.server_leaf);
    let pinned = ValidationContext {
        trusted_ca: Some(DataSource::Inline(bill.chain_pem.clone().into_bytes())),
        ..ValidationContext::default()
    };
    scene.client_rules = Some(pinned);
    let (_, client) = scene.contexts();
    let server = ServerContext::build(&scene.downstream, &bill.material(), &PeerRules::default()).unwrap();
    exchange(&server, &client, &ConnectionOptions::default(), duplex(16_384))
        .await
        .1
        .unwrap();
    // Another certificate of the same name and issuer is not that certificate.
    assert!(matches!(
        scene.run().await.1,
        Err(HandshakeError::Verify(VerifyFailure::UnknownIssuer))
    ));
}

#[tokio::test]
async fn tls_1_2_works_and_keeps_envoys_order_of_suites() {
    let mut scene = Scene::new();
    scene.upstream.common.max_version = TlsVersion::V1_2;
    let info = scene.run().await.0.unwrap();
    assert_eq!(
        (info.version, info.cipher),
        ("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")
    );
    assert_eq!(info.peer.unwrap().uri_sans().next(), Some(FRONT));
    scene.downstream.common.cipher_suites = vec![CipherSuite::EcdheEcdsaAes256GcmSha384];
    scene.downstream.common.groups = vec![KeyExchangeGroup::P256];
    let info = scene.run().await.0.unwrap();
    assert_eq!(
        (info.cipher, info.group),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "P-256")
    );
}

#[tokio::test]
async fn resumed_session_keeps_the_identity_and_dies_with_the_context() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let mut scene = Scene::new();
        scene.downstream.common.max_version = version;
        let (server, client) = scene.contexts();
        assert!(
            !exchange(&server, &client, &ConnectionOptions::default(), duplex(16_384))
                .await
                .0
                .unwrap()
                .resumed
        );
        let (served, called) =
            exchange(&server, &client, &ConnectionOptions::default(), duplex(16_384)).await;
        let served = served.unwrap();
        assert!(served.resumed, "{version:?}");
        assert!(
            served
                .counters()
                .eq([SslCounter::Handshake, SslCounter::SessionReused])
        );
        assert_eq!(served.peer.unwrap().uri_sans().next(), Some(FRONT));
        assert_eq!(called.unwrap().peer.unwrap().uri_sans().next(), Some(BILL));
        let (other_server, other_client) = scene.contexts();
        assert!(
            !exchange(
                &other_server,
                &client,
                &ConnectionOptions::default(),
                duplex(16_384)
            )
            .await
            .0
            .unwrap()
            .resumed
        );
        assert!(
            !exchange(
                &server,
                &other_client,
                &ConnectionOptions::default(),
                duplex(16_384)
            )
            .await
            .0
            .unwrap()
            .resumed
        );
    }
}

/// Reads and writes one byte at a time.
struct ByteWise(DuplexStream);

impl AsyncRead for ByteWise {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut one))?;
        buf.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ByteWise {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes.get(..1).unwrap_or_default())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn handshake_succeeds_byte_by_byte() {
    let (server, client) = Scene::new().contexts();
    let (near, far) = duplex(16_384);
    let (served, called) = exchange(
        &server,
        &client,
        &ConnectionOptions::default(),
        (ByteWise(near), ByteWise(far)),
    )
    .await;
    assert_eq!(
        (served.unwrap().version, called.unwrap().version),
        ("TLSv1.3", "TLSv1.3")
    );
}

/// Passes bytes between two pipes until one ends, with some of the first ones changed.
async fn corrupt(mut from: DuplexStream, mut to: DuplexStream, random: &mut fastrand::Rng) {
    let mut bytes = vec![0; 4096];
    let count = from.read(&mut bytes).await.unwrap_or(0);
    bytes.truncate(count);
    for _ in 0..random.usize(1..4) {
        if let Some(byte) = bytes.get_mut(random.usize(..count.max(1))) {
            *byte = random.u8(..);
        }
    }
    let _ = to.write_all(&bytes).await;
    let _ = to.shutdown().await;
}

#[tokio::test]
async fn garbage_ends_in_an_error_and_never_in_a_panic() {
    let (server, client) = Scene::new().contexts();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        let ((near, middle), (other_middle, far)) = (duplex(16_384), duplex(16_384));
        let options = ConnectionOptions::default();
        let (_, accepted, _) = tokio::join!(
            corrupt(middle, other_middle, &mut random),
            server.accept(far),
            client.connect(near, &options)
        );
        accepted.map(|_| ()).unwrap_err();
    }
}

#[tokio::test]
async fn half_close_is_seen_and_the_other_direction_stays_open() {
    let (server, client) = Scene::new().contexts();
    let (near, far) = duplex(16_384);
    let serve = async {
        let (mut stream, _) = server.accept(far).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(b"after your end").await.unwrap();
        stream.flush().await.unwrap();
        // Gone without close_notify.
    };
    let call = async {
        let (mut stream, _) = client.connect(near, &ConnectionOptions::default()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"after your end");
    };
    tokio::join!(serve, call);
}

#[test]
fn contexts_that_cannot_work_are_refused() {
    let authority = Authority::new();
    let pair = authority.issue(&Leaf::spiffe(BILL)).material();
    let mut context = authority.trusts(&[Pattern::Exact(BILL.into())]);
    context.trusted_ca = None;
    assert!(matches!(
        PeerRules::build("ROOTCA", &context),
        Err(ContextError::SanWithoutCa)
    ));
    let context = authority.trusts(&[Pattern::Regex("(".into())]);
    assert!(matches!(
        PeerRules::build("ROOTCA", &context),
        Err(ContextError::Regex(_))
    ));
    let mut tls = upstream();
    tls.sni = Some("a|b".into());
    assert!(matches!(
        ClientContext::build(&tls, None, &PeerRules::default()),
        Err(ContextError::Sni(_))
    ));
    let mut tls = downstream();
    tls.common = common(&[""]);
    assert!(matches!(
        ServerContext::build(&tls, &pair, &PeerRules::default()),
        Err(ContextError::Alpn(_))
    ));
    tls.common = common(&[]);
    (tls.common.min_version, tls.common.max_version) = (TlsVersion::V1_3, TlsVersion::V1_2);
    assert!(matches!(
        ServerContext::build(&tls, &pair, &PeerRules::default()),
        Err(ContextError::NoVersion)
    ));
}
