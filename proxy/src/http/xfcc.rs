//! `x-forwarded-client-cert`. Source: Envoy docs, HTTP connection manager, headers; `ConnectionManagerUtility::mutateXfccRequestHeader`.
use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_model::hcm::{ClientCertDetails, ForwardClientCert};

use crate::tls::info::TlsInfo;

const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Removes, keeps or extends the header as configured.
pub(super) fn mutate(
    headers: &mut HeaderMap,
    mode: ForwardClientCert,
    details: ClientCertDetails,
    tls: Option<&TlsInfo>,
) {
    // Only a client that proved who it is may be believed or described (Envoy: mTLS connection).
    let mutual = tls.filter(|tls| tls.peer.is_some());
    match mode {
        ForwardClientCert::AlwaysForwardOnly => {}
        ForwardClientCert::ForwardOnly if mutual.is_some() => {}
        ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet if mutual.is_some() => {
            let Some(element) = mutual.and_then(|tls| element(tls, details)) else {
                return;
            };
            let value = match headers.get(X_FORWARDED_CLIENT_CERT) {
                Some(before) if mode == ForwardClientCert::AppendForward => {
                    [before.as_bytes(), element.as_bytes()].join(&b',')
                }
                _ => element.into_bytes(),
            };
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.insert(X_FORWARDED_CLIENT_CERT, value);
            }
        }
        _ => {
            headers.remove(X_FORWARDED_CLIENT_CERT);
        }
    }
}

/// One element: `By=…;Hash=…;Cert="…";Subject="…";URI=…;DNS=…`.
fn element(tls: &TlsInfo, details: ClientCertDetails) -> Option<String> {
    let peer = tls.peer.as_ref()?;
    let mut text = String::with_capacity(256);
    for uri in tls.local.iter().flat_map(|local| local.uri_sans()) {
        part(&mut text, format_args!("By={uri}"));
    }
    part(&mut text, format_args!("Hash={}", peer.sha256_hex));
    if details.cert {
        part(&mut text, format_args!("Cert=\"{}\"", peer.pem_urlencoded()));
    }
    if details.subject {
        part(
            &mut text,
            format_args!("Subject=\"{}\"", peer.subject.replace('"', "\\\"")),
        );
    }
    if details.uri {
        if peer.uri_sans().next().is_none() {
            part(&mut text, format_args!("URI="));
        }
        for uri in peer.uri_sans() {
            part(&mut text, format_args!("URI={uri}"));
        }
    }
    if details.dns {
        for dns in peer.dns_sans() {
            part(&mut text, format_args!("DNS={dns}"));
        }
    }
    Some(text)
}

fn part(text: &mut String, part: std::fmt::Arguments<'_>) {
    if !text.is_empty() {
        text.push(';');
    }
    // Writing to a String cannot fail.
    let _ = text.write_fmt(part);
}
