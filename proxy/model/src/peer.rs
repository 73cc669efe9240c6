//! Istio peer metadata: who a workload is, as it tells its peers over HTTP headers and before the bytes of a TCP stream.
//!
//! Pure: bytes in, values out. What is sent when is the filters' affair. Source: contract §5; envoy contrib/istio/filters
//! (metadata_exchange for TCP, peer_metadata for HTTP), whose receivers compare and cache the bytes, so map keys are in order.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use envoy_types::pb::google::protobuf;
use prost::Message;

use crate::any::type_name;
use crate::field::Context;
use crate::metadata::{Struct, Value, struct_from_proto};
use crate::node::Node;
use crate::wire;

/// Request and response header with [`encode_http`]'s text.
pub const METADATA_HEADER: &str = "x-envoy-peer-metadata";
/// Request and response header with the sender's node id.
pub const ID_HEADER: &str = "x-envoy-peer-metadata-id";

/// First four bytes of a TCP exchange, big-endian.
pub const TCP_MAGIC: u32 = 0x3D23_0467;
/// Bytes of magic and length.
const TCP_HEADER_BYTES: usize = 8;
/// Longest message that is read; Istio's is below 1 KiB, and labels are bounded by Kubernetes' objects.
pub const MAX_TCP_BYTES: usize = 64 * 1024;
/// Longest header value that is read, in characters of base64.
pub const MAX_HTTP_CHARS: usize = 64 * 1024;

/// Labels that are always sent. Source: istio common metadata_object, `kDefaultLabels`.
const LABELS: [&str; 4] = [
    "service.istio.io/canonical-name",
    "service.istio.io/canonical-revision",
    "app",
    "version",
];
/// Members of the node's metadata that are sent as they are.
const MEMBERS: [&str; 6] = [
    "NAME",
    "NAMESPACE",
    "WORKLOAD_NAME",
    "CLUSTER_ID",
    "OWNER",
    "IDENTITY",
];

/// Why a peer's metadata cannot be read; the peer is at fault, and another try cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Longer than what is read.
    #[error("peer metadata of {length} bytes is longer than the {limit} that are read")]
    TooLong {
        /// What the peer announced or sent.
        length: usize,
        /// What is read.
        limit: usize,
    },
    /// Not base64.
    #[error("peer metadata is not base64")]
    Base64,
    /// Not a protobuf `Struct`, or in a TCP exchange not one in an `Any`.
    #[error("peer metadata is not a protobuf struct: {0}")]
    Malformed(String),
}

/// What this workload tells its peers.
pub fn metadata(node: &Node, additional_labels: &[String]) -> Struct {
    let mut fields = Struct::new();
    for member in MEMBERS {
        if let Some(value @ Value::String(text)) = node.metadata.get(member)
            && !text.is_empty()
        {
            fields.insert(member.to_owned(), value.clone());
        }
    }
    let labels = node.metadata.get("LABELS").and_then(Value::as_struct);
    let names = LABELS
        .into_iter()
        .chain(additional_labels.iter().map(String::as_str));
    let labels: Struct = names
        .filter_map(|name| Some((name.to_owned(), labels?.get(name)?.clone())))
        .collect();
    if !labels.is_empty() {
        fields.insert("LABELS".to_owned(), Value::Struct(labels));
    }
    for (key, text) in [
        ("REGION", &node.locality.region),
        ("AVAILABILITY_ZONE", &node.locality.zone),
    ] {
        if !text.is_empty() {
            fields.insert(key.to_owned(), Value::String(text.clone()));
        }
    }
    fields
}

/// The value of [`METADATA_HEADER`].
pub fn encode_http(node: &Node, additional_labels: &[String]) -> String {
    STANDARD.encode(wire::encode_struct(&metadata(node, additional_labels)))
}

/// Reads the value of [`METADATA_HEADER`].
///
/// # Errors
/// It is too long, no base64, or no `Struct`.
pub fn decode_http(value: &str) -> Result<Struct, PeerError> {
    if value.len() > MAX_HTTP_CHARS {
        return Err(PeerError::TooLong {
            length: value.len(),
            limit: MAX_HTTP_CHARS,
        });
    }
    decode_struct(&STANDARD.decode(value).map_err(|_| PeerError::Base64)?)
}

/// What a side writes before the bytes of its TCP stream.
pub fn encode_tcp(node: &Node, additional_labels: &[String]) -> Vec<u8> {
    let fields = Struct::from([
        (
            METADATA_HEADER.to_owned(),
            Value::Struct(metadata(node, additional_labels)),
        ),
        (ID_HEADER.to_owned(), Value::String(node.id.clone())),
    ]);
    let mut any = Vec::new();
    wire::message(1, b"type.googleapis.com/google.protobuf.Struct", &mut any);
    wire::message(2, &wire::encode_struct(&fields), &mut any);
    let mut out = Vec::with_capacity(TCP_HEADER_BYTES + any.len());
    out.extend_from_slice(&TCP_MAGIC.to_be_bytes());
    // Our own node is far below 4 GiB; a peer refuses anything longer than it reads.
    out.extend_from_slice(&u32::try_from(any.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&any);
    out
}

/// What the first bytes of a TCP stream are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcpExchange {
    /// The beginning of an exchange; more bytes decide.
    NeedMore,
    /// The application's bytes.
    NotMetadata,
    /// An exchange.
    Found {
        /// Bytes of the exchange; the application's follow.
        consumed: usize,
        /// The peer's node id; empty if it did not say.
        id: String,
        /// Who the peer is; empty if it did not say.
        metadata: Struct,
    },
}

/// Judges the first bytes of a TCP stream; call it again with all of them when more came.
///
/// # Errors
/// An exchange begins but is too long or malformed. The stream cannot go on: its bytes after the exchange cannot be told apart.
pub fn decode_tcp(bytes: &[u8]) -> Result<TcpExchange, PeerError> {
    let magic = TCP_MAGIC.to_be_bytes();
    if bytes.iter().zip(&magic).any(|(byte, expected)| byte != expected) {
        return Ok(TcpExchange::NotMetadata);
    }
    let Some(length) = bytes
        .get(magic.len()..TCP_HEADER_BYTES)
        .and_then(|length| length.try_into().ok())
    else {
        return Ok(TcpExchange::NeedMore);
    };
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_TCP_BYTES {
        return Err(PeerError::TooLong {
            length,
            limit: MAX_TCP_BYTES,
        });
    }
    let consumed = TCP_HEADER_BYTES + length;
    let Some(any) = bytes.get(TCP_HEADER_BYTES..consumed) else {
        return Ok(TcpExchange::NeedMore);
    };
    let any = protobuf::Any::decode(any).map_err(|error| PeerError::Malformed(error.to_string()))?;
    if type_name(&any.type_url) != "google.protobuf.Struct" {
        return Err(PeerError::Malformed(format!("an Any of {:?}", any.type_url)));
    }
    let mut fields = decode_struct(&any.value)?;
    let id = match fields.remove(ID_HEADER) {
        Some(Value::String(id)) => id,
        _ => String::new(),
    };
    let metadata = match fields.remove(METADATA_HEADER) {
        Some(Value::Struct(metadata)) => metadata,
        _ => Struct::new(),
    };
    Ok(TcpExchange::Found {
        consumed,
        id,
        metadata,
    })
}

fn decode_struct(bytes: &[u8]) -> Result<Struct, PeerError> {
    let malformed = |error: String| PeerError::Malformed(error);
    let proto = protobuf::Struct::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    let context = Context::new("peer", "");
    struct_from_proto(&context.root(), proto).map_err(|rejection| malformed(rejection.reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Locality;

    fn text(value: &str) -> Value {
        Value::String(value.to_owned())
    }

    fn front() -> Node {
        let labels = Struct::from([
            ("app".to_owned(), text("front")),
            ("secret".to_owned(), text("s")),
            ("team".to_owned(), text("t")),
        ]);
        Node {
            id: "sidecar~10.20.0.11~front.default~default.svc.cluster.local".to_owned(),
            locality: Locality {
                region: "r".to_owned(),
                ..Locality::default()
            },
            metadata: Struct::from([
                ("NAME".to_owned(), text("front")),
                ("NAMESPACE".to_owned(), text("default")),
                ("CLUSTER_ID".to_owned(), text("Kubernetes")),
                ("ISTIO_VERSION".to_owned(), text("1.31.0")),
                ("LABELS".to_owned(), Value::Struct(labels)),
            ]),
            ..Node::default()
        }
    }

    #[test]
    fn only_the_usual_members_and_labels_are_told() {
        let told = metadata(&front(), &["team".to_owned(), "none".to_owned()]);
        let keys: Vec<_> = told.keys().map(String::as_str).collect();
        assert_eq!(keys, ["CLUSTER_ID", "LABELS", "NAME", "NAMESPACE", "REGION"]);
        let labels: Vec<_> = told["LABELS"]
            .as_struct()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(labels, ["app", "team"]);
    }

    #[test]
    fn what_is_told_over_http_is_read_again() {
        let value = encode_http(&front(), &[]);
        assert_eq!(decode_http(&value).unwrap(), metadata(&front(), &[]));
        assert_eq!(value, encode_http(&front(), &[]));
    }

    #[test]
    fn map_entries_are_in_the_order_of_their_keys() {
        let fields = Struct::from([("b".to_owned(), Value::Bool(true)), ("a".to_owned(), text("x"))]);
        let bytes = b"\x0a\x08\x0a\x01a\x12\x03\x1a\x01x\x0a\x07\x0a\x01b\x12\x02\x20\x01";
        assert_eq!(wire::encode_struct(&fields), bytes);
    }

    #[test]
    fn every_kind_of_value_survives() {
        let inner = Struct::from([("k".to_owned(), Value::Null)]);
        let fields = Struct::from([
            (
                "list".to_owned(),
                Value::List(vec![Value::Number(1.5), Value::Bool(false), text("")]),
            ),
            ("struct".to_owned(), Value::Struct(inner)),
        ]);
        assert_eq!(decode_struct(&wire::encode_struct(&fields)).unwrap(), fields);
    }

    #[test]
    fn what_is_no_base64_or_no_struct_or_too_long_is_refused() {
        assert_eq!(decode_http("!"), Err(PeerError::Base64));
        assert!(matches!(decode_http("/////w=="), Err(PeerError::Malformed(_))));
        let long = "A".repeat(MAX_HTTP_CHARS + 4);
        assert!(matches!(decode_http(&long), Err(PeerError::TooLong { .. })));
    }

    #[test]
    fn a_tcp_exchange_is_found_once_all_of_it_came() {
        let mut bytes = encode_tcp(&front(), &[]);
        let length = bytes.len();
        bytes.extend_from_slice(b"GET /");
        for cut in 0..length {
            assert_eq!(decode_tcp(&bytes[..cut]), Ok(TcpExchange::NeedMore), "{cut}");
        }
        let id = front().id;
        let found = TcpExchange::Found {
            consumed: length,
            id,
            metadata: metadata(&front(), &[]),
        };
        assert_eq!(decode_tcp(&bytes), Ok(found.clone()));
        assert_eq!(decode_tcp(&bytes[..length]), Ok(found));
    }

    #[test]
    fn other_bytes_are_the_applications() {
        assert_eq!(decode_tcp(b"G"), Ok(TcpExchange::NotMetadata));
        assert_eq!(decode_tcp(b"\x3d\x23\x04\x68"), Ok(TcpExchange::NotMetadata));
        assert_eq!(decode_tcp(b""), Ok(TcpExchange::NeedMore));
    }

    #[test]
    fn an_exchange_that_is_too_long_or_malformed_ends_the_stream() {
        let long = b"\x3d\x23\x04\x67\xff\xff\xff\xff";
        assert!(matches!(decode_tcp(long), Err(PeerError::TooLong { .. })));
        assert!(matches!(
            decode_tcp(b"\x3d\x23\x04\x67\0\0\0\x01\xff"),
            Err(PeerError::Malformed(_))
        ));
        assert!(matches!(
            decode_tcp(b"\x3d\x23\x04\x67\0\0\0\0"),
            Err(PeerError::Malformed(_))
        ));
    }
}
