//! Prints distinguished names as Envoy does: RFC 2253, last name first, as OpenSSL's `XN_FLAG_RFC2253`.
//!
//! Every byte outside printable ASCII is written `\XX` after conversion to UTF-8; a type without a short name is written as
//! its number with the value in hex. Source: RFC 2253 §2, checked against Envoy 1.40's `%DOWNSTREAM_PEER_SUBJECT%`.

use std::fmt::Write as _;

use x509_parser::asn1_rs::{Any, Tag, ToDer};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// `CN=a,O=b` for a name that is encoded `O=b`, `CN=a`; empty for an empty name.
pub(crate) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let sets: Vec<_> = name.iter_rdn().collect();
    for (index, set) in sets.iter().rev().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let attributes: Vec<_> = set.iter().collect();
        for (index, attribute) in attributes.iter().rev().enumerate() {
            if index > 0 {
                out.push('+');
            }
            push_attribute(&mut out, attribute);
        }
    }
    out
}

fn push_attribute(out: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let id = attribute.attr_type().to_id_string();
    let short = short_name(&id);
    out.push_str(short.unwrap_or(&id));
    out.push('=');
    match short.and_then(|_| utf8(attribute.attr_value())) {
        Some(text) => push_escaped(out, text.as_bytes()),
        None => push_hex_der(out, attribute.attr_value()),
    }
}

/// Short names of attribute types, as BoringSSL's object table has them.
fn short_name(id: &str) -> Option<&'static str> {
    Some(match id {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.15" => "businessCategory",
        "2.5.4.17" => "postalCode",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.44" => "generationQualifier",
        "2.5.4.45" => "x500UniqueIdentifier",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.65" => "pseudonym",
        "2.5.4.72" => "role",
        "1.2.840.113549.1.9.1" => "emailAddress",
        "1.2.840.113549.1.9.2" => "unstructuredName",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        _ => return None,
    })
}

/// The text of a string type; `None` for a value that is no string, which is printed as hex.
fn utf8(value: &Any<'_>) -> Option<String> {
    let bytes = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::NumericString | Tag::PrintableString | Tag::Ia5String | Tag::VisibleString => {
            String::from_utf8(bytes.to_vec())
                .ok()
                .or_else(|| Some(latin1(bytes)))
        }
        Tag::T61String => Some(latin1(bytes)),
        Tag::BmpString => {
            let units: Vec<u16> = bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|unit| u16::from_be_bytes(*unit))
                .collect();
            String::from_utf16(&units).ok()
        }
        Tag::UniversalString => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|unit| char::from_u32(u32::from_be_bytes(*unit)))
            .collect(),
        _ => None,
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn push_escaped(out: &mut String, text: &[u8]) {
    for (index, byte) in text.iter().copied().enumerate() {
        let (first, last) = (index == 0, index + 1 == text.len());
        let special = match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => true,
            b'#' => first,
            b' ' => first || last,
            _ => false,
        };
        if special {
            out.push('\\');
        }
        if (0x20..0x7f).contains(&byte) {
            out.push(char::from(byte));
        } else {
            push_byte(out, byte);
        }
    }
}

fn push_byte(out: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\{byte:02X}");
}

fn push_hex_der(out: &mut String, value: &Any<'_>) {
    out.push('#');
    for byte in value.to_der_vec().unwrap_or_default() {
        let _ = write!(out, "{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use x509_parser::prelude::{FromDer as _, Pem, X509Certificate};

    use super::*;

    /// What Envoy 1.40 printed as `%DOWNSTREAM_PEER_SUBJECT%` for these two certificates.
    #[test]
    fn subjects_are_printed_as_envoy_does() {
        let many = r##"title=Dr,serialNumber=77,DC=com,UID=u1,emailAddress=a@b.c,CN=a b\;c \"\<\C3\A9\>\\,O=Acme\, Inc\ ,L=Karls\,ruhe,ST=Ba-W\C3\BC,C=DE"##;
        check_pem(MANY_ATTRIBUTES, many);
        check_pem(SEVERAL_IN_ONE_SET, r"CN=\ sp\ ,OU=multi+O=two");
    }

    #[track_caller]
    fn check_pem(pem: &str, expected: &str) {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = Pem::parse_x509(&pem).unwrap();
        assert_eq!(rfc2253(certificate.subject()), expected);
    }

    #[track_caller]
    fn check(kind: rcgen::DnType, value: rcgen::DnValue, expected: &str) {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(kind, value);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
        assert_eq!(rfc2253(certificate.subject()), expected);
    }

    #[test]
    fn unknown_types_are_printed_in_hex_and_odd_characters_escaped() {
        use rcgen::{DnType, DnValue};
        let text = |text: &str| DnValue::Utf8String(text.to_owned());
        check(
            DnType::CustomDnType(vec![1, 2, 3, 4, 5]),
            text("zz"),
            "1.2.3.4.5=#0C027A7A",
        );
        check(DnType::CommonName, text("#1"), r"CN=\#1");
        check(DnType::CommonName, text("a#1"), "CN=a#1");
        check(DnType::CommonName, text("a=b\n\u{7f}"), r"CN=a=b\0A\7F");
        check(DnType::CommonName, text(" "), r"CN=\ ");
        check(
            DnType::CommonName,
            DnValue::BmpString("ü".try_into().unwrap()),
            r"CN=\C3\BC",
        );
    }

    const MANY_ATTRIBUTES: &str = "\
-----BEGIN CERTIFICATE-----
MIICpjCCAkugAwIBAgIJAPHi08S1pgcYMAoGCCqGSM49BAMCMBgxFjAUBgNVBAoM
DWNsdXN0ZXIubG9jYWwwHhcNMjYxMTIxMDQwMDQ1WhcNMzUwMjA3MDQwMDQ1WjCB
uDELMAkGA1UEBhMCREUxDzANBgNVBAgMBkJhLVfDvDETMBEGA1UEBwwKS2FybHMs
cnVoZTETMBEGA1UECgwKQWNtZSwgSW5jIDEVMBMGA1UEAwwMYSBiO2MgIjzDqT5c
MRQwEgYJKoZIhvcNAQkBFgVhQGIuYzESMBAGCgmSJomT8ixkAQEMAnUxMRMwEQYK
CZImiZPyLGQBGRYDY29tMQswCQYDVQQFEwI3NzELMAkGA1UEDAwCRHIwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAAQIOYSSyhHiYJ3LxujU/XB740vDfx8Z6c0P2S0S
vItJjyLP8/OLULOUce8mXem+KONayUuxSfBikx3mUvt6HXNho4HcMIHZMAwGA1Ud
EwEB/wQCMAAwDgYDVR0PAQH/BAQDAgeAMB0GA1UdJQQWMBQGCCsGAQUFBwMBBggr
BgEFBQcDAjBaBgNVHREEUzBRhipzcGlmZmU6Ly9jbHVzdGVyLmxvY2FsL25zL2Rl
ZmF1bHQvc2EvZnJvbnSCCWEuZXhhbXBsZYILKi5iLmV4YW1wbGWHBAoAAAGBBXhA
eS56MB0GA1UdDgQWBBRwUTn7HNbTTAZurfm9jmrVqc7LFzAfBgNVHSMEGDAWgBQF
kJ9AClj6H1AI5g4nJwWh9MNh/DAKBggqhkjOPQQDAgNJADBGAiEA69biH2H4dGBI
5tgc0gCLgn58MDTV5evsK/OTaOYYjHgCIQDW7zzKW+zPQmEpn3NdhTqShGCuGdSI
+H2Mw0GHs0HZoQ==
-----END CERTIFICATE-----
";

    const SEVERAL_IN_ONE_SET: &str = "\
-----BEGIN CERTIFICATE-----
MIIB6TCCAZCgAwIBAgIBATAKBggqhkjOPQQDAjAYMRYwFAYDVQQKDA1jbHVzdGVy
LmxvY2FsMB4XDTI2MTEyMTA0MDA0NloXDTM1MDIwNzA0MDA0NlowKzEaMAoGA1UE
CgwDdHdvMAwGA1UECwwFbXVsdGkxDTALBgNVBAMMBCBzcCAwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAAScuoMiN1+0X7vnQztwgByjjHbC4TppQ4dOmW04JhDcV5d6
9dQsgs9IB54zzfnsCsOVvtbsl4yvR6/Pe7whOM3ao4G3MIG0MAwGA1UdEwEB/wQC
MAAwDgYDVR0PAQH/BAQDAgeAMB0GA1UdJQQWMBQGCCsGAQUFBwMBBggrBgEFBQcD
AjA1BgNVHREELjAshipzcGlmZmU6Ly9jbHVzdGVyLmxvY2FsL25zL2RlZmF1bHQv
c2EvZnJvbnQwHQYDVR0OBBYEFKby9zZnLuToXvA5+Orjx+r+HQ8DMB8GA1UdIwQY
MBaAFAWQn0AKWPofUAjmDicnBaH0w2H8MAoGCCqGSM49BAMCA0cAMEQCIGJO8v7X
0BvMo5Vck3XFif+c6yctnLedsnpgGix6h7+vAiAz/NpRrgHUiu5JN5AjlM4sZN73
m52J5m7pn2i/XA+oUQ==
-----END CERTIFICATE-----
";
}
