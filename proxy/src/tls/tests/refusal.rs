//! Refusals: reason, counter and alert are Envoy's for the same peer.

use std::io;

use outrigger_model::matcher::Pattern;
use outrigger_model::secret::DataSource;
use outrigger_model::tls::{CipherSuite, TlsVersion};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use tokio::io::{AsyncWriteExt, duplex};

use super::authority::{Authority, Leaf};
use super::{Outcome, Scene};
use crate::tls::ConnectionOptions;
use crate::tls::error::{HandshakeError, SslCounter};

#[track_caller]
fn reason<T: std::fmt::Debug>(result: Result<T, HandshakeError>) -> String {
    result
        .unwrap_err()
        .transport_failure_reason()
        .unwrap_or_else(|| "-".to_owned())
}

const VERIFY: &str =
    "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: ";

/// The client's reason to refuse the server, in Envoy's words after [`VERIFY`], and the alert that the server gets.
#[track_caller]
fn check_client_refuses(outcome: Outcome, text: &str, counter: SslCounter, alert: u8) {
    let (server, client) = outcome;
    let client = client.unwrap_err();
    assert_eq!(client.counter(), Some(counter));
    assert_eq!(
        client.transport_failure_reason().unwrap(),
        format!("{VERIFY}{text}:TLS_error_end")
    );
    assert!(
        matches!(server, Err(HandshakeError::Alert(got)) if got == alert),
        "{server:?}"
    );
}

#[track_caller]
fn check_server_refuses(outcome: Outcome, text: &str, counter: SslCounter, alert: u8) {
    let (server, client) = outcome;
    let server = server.unwrap_err();
    assert_eq!(server.counter(), Some(counter));
    assert_eq!(
        server.transport_failure_reason().unwrap(),
        format!("{VERIFY}{text}:TLS_error_end")
    );
    assert!(
        matches!(client, Err(HandshakeError::Alert(got)) if got == alert),
        "{client:?}"
    );
}

const X509: &str = "X509_verify_cert: certificate verification error at depth 0: ";

#[tokio::test]
async fn client_refuses_a_server_with_another_spiffe_id() {
    let mut scene = Scene::new();
    scene.server_leaf = Leaf::spiffe("spiffe://evil/ns/x/sa/y");
    let text = "SAN matcher, certificate SANs are [spiffe://evil/ns/x/sa/y]";
    check_client_refuses(scene.run().await, text, SslCounter::FailVerifySan, 46);
}

#[tokio::test]
async fn server_refuses_a_client_of_another_trust_domain() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let mut scene = Scene::new();
        scene.downstream.common.max_version = version;
        scene.client_leaf = Some(Leaf::spiffe("spiffe://evil/ns/x/sa/y"));
        let text = "SAN matcher, certificate SANs are [spiffe://evil/ns/x/sa/y]";
        check_server_refuses(scene.run().await, text, SslCounter::FailVerifySan, 46);
    }
}

#[tokio::test]
async fn unknown_root_is_refused_on_both_sides() {
    let text = format!("{X509}unable to get local issuer certificate");
    let mut scene = Scene::new();
    scene.client_rules = Some(Authority::new().trusts(&[]));
    check_client_refuses(scene.run().await, &text, SslCounter::FailVerifyError, 48);
    let mut scene = Scene::new();
    scene.server_rules = Some(Authority::new().trusts(&[]));
    check_server_refuses(scene.run().await, &text, SslCounter::FailVerifyError, 48);
}

#[tokio::test]
async fn validity_is_checked_on_both_sides() {
    for (years, text) in [
        ((2000, 2001), "certificate has expired"),
        ((2090, 2100), "certificate is not yet valid"),
    ] {
        let text = format!("{X509}{text}");
        let mut scene = Scene::new();
        scene.server_leaf.years = years;
        check_client_refuses(scene.run().await, &text, SslCounter::FailVerifyError, 45);
        let mut scene = Scene::new();
        scene.client_leaf.as_mut().unwrap().years = years;
        check_server_refuses(scene.run().await, &text, SslCounter::FailVerifyError, 45);
    }
}

#[tokio::test]
async fn certificate_must_be_meant_for_its_role() {
    let text = format!("{X509}unsupported certificate purpose");
    for usages in [
        vec![ExtendedKeyUsagePurpose::ClientAuth],
        vec![ExtendedKeyUsagePurpose::Any],
    ] {
        let mut scene = Scene::new();
        scene.server_leaf.usages = usages;
        check_client_refuses(scene.run().await, &text, SslCounter::FailVerifyError, 43);
    }
    let mut scene = Scene::new();
    scene.client_leaf.as_mut().unwrap().usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    check_server_refuses(scene.run().await, &text, SslCounter::FailVerifyError, 43);
    let mut scene = Scene::new();
    scene.client_leaf.as_mut().unwrap().key_usages = vec![KeyUsagePurpose::KeyAgreement];
    check_server_refuses(scene.run().await, &text, SslCounter::FailVerifyError, 43);
    let mut scene = Scene::new();
    scene.server_leaf.usages.clear();
    scene.server_leaf.key_usages.clear();
    scene.run().await.1.unwrap();
}

#[tokio::test]
async fn client_without_certificate_is_refused_where_one_is_required() {
    // Required by the flag, or because a name has to match.
    for (require, sans) in [(true, vec![]), (false, vec![Pattern::Prefix("spiffe://".into())])] {
        let mut scene = Scene::new();
        scene.client_leaf = None;
        scene.downstream.require_client_certificate = require;
        scene.server_rules = Some(scene.authority.trusts(&sans));
        let (server, client) = scene.run().await;
        assert_eq!(
            server.as_ref().unwrap_err().counter(),
            Some(SslCounter::FailVerifyNoCert)
        );
        assert_eq!(
            reason(server),
            "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:\
             peer did not provide required client certificate:TLS_error_end"
        );
        assert!(matches!(client, Err(HandshakeError::Alert(_))), "{client:?}");
    }
}

#[tokio::test]
async fn revocation_lists_are_honoured() {
    let crl = |text: &str| format!("{X509}certificate revocation check against provided CRLs failed: {text}");
    let mut scene = Scene::new();
    let list = |pem: String| Some(DataSource::Inline(pem.into_bytes()));
    scene.client_rules.as_mut().unwrap().crl = list(scene.authority.crl(&[0xcd], 2100));
    scene.run().await.1.unwrap();
    scene.client_rules.as_mut().unwrap().crl = list(scene.authority.crl(&[0xab], 2100));
    check_client_refuses(
        scene.run().await,
        &crl("certificate revoked"),
        SslCounter::FailVerifyError,
        44,
    );
    scene.client_rules.as_mut().unwrap().crl = list(scene.authority.crl(&[], 2021));
    check_client_refuses(
        scene.run().await,
        &crl("CRL has expired"),
        SslCounter::FailVerifyError,
        48,
    );
}

#[tokio::test]
async fn versions_and_suites_without_overlap_are_named() {
    let mut scene = Scene::new();
    scene.downstream.common.max_version = TlsVersion::V1_2;
    scene.upstream.common.min_version = TlsVersion::V1_3;
    let (server, client) = scene.run().await;
    assert_eq!(
        reason(server),
        "TLS_error:|268435696:SSL routines:OPENSSL_internal:UNSUPPORTED_PROTOCOL:TLS_error_end"
    );
    let alert =
        "TLS_error:|268436526:SSL routines:OPENSSL_internal:TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end";
    assert_eq!(reason(client), alert);
    let mut scene = Scene::new();
    scene.downstream.common.max_version = TlsVersion::V1_2;
    scene.downstream.common.cipher_suites = vec![CipherSuite::EcdheEcdsaAes256GcmSha384];
    scene.upstream.common.cipher_suites = vec![CipherSuite::EcdheEcdsaAes128GcmSha256];
    let server = scene.run().await.0;
    assert_eq!(
        reason(server),
        "TLS_error:|268435640:SSL routines:OPENSSL_internal:NO_SHARED_CIPHER:TLS_error_end"
    );
}

#[tokio::test]
async fn plain_text_peers_are_named() {
    let (server, client) = Scene::new().contexts();
    let wrong = "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end";
    let (near, mut far) = duplex(16_384);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = client
        .connect(near, &ConnectionOptions::default())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.counter(), Some(SslCounter::ConnectionError));
    assert_eq!(reason(Err::<(), _>(error)), wrong);
    let (near, mut far) = duplex(16_384);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(reason(server.accept(near).await.map(|_| ())), wrong);
}

#[tokio::test]
async fn peer_that_just_closes_has_no_reason_and_no_counter() {
    let (server, client) = Scene::new().contexts();
    let (near, far) = duplex(16_384);
    drop(far);
    let error = server.accept(near).await.map(|_| ()).unwrap_err();
    assert_eq!((error.counter(), error.transport_failure_reason()), (None, None));
    let (near, mut far) = duplex(16_384);
    far.shutdown().await.unwrap();
    let error = client
        .connect(near, &ConnectionOptions::default())
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!((error.counter(), error.transport_failure_reason()), (None, None));
    let reset = HandshakeError::from_io(io::Error::from_raw_os_error(104));
    assert_eq!(
        reason(Err::<(), _>(reset)),
        "TLS_error:|33554536:system library:OPENSSL_internal:Connection reset by peer:TLS_error_end"
    );
}
