//! `google.protobuf.Any` and the `TypedStruct`s inside, and the names of every type that may stand there.
//!
//! A `TypedStruct` holds its message as a JSON object; Istio writes its own filters so. It goes straight into the message it names,
//! without descriptors. Source: xds/type/v3/typed_struct.proto (udpa/type/v1 is the same on the wire).
use envoy_types::pb::google::protobuf;
use prost::Message;

use crate::field::{FieldPath, Rejection};

/// Names of the types that `Any` fields may hold.
pub(crate) mod types {
    pub(crate) const HTTP_CONNECTION_MANAGER: &str =
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    pub(crate) const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    pub(crate) const TCP_METADATA_EXCHANGE: &str = "envoy.tcp.metadataexchange.config.MetadataExchange";
    pub(crate) const ISTIO_STATS: &str = "stats.PluginConfig";
    pub(crate) const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
    pub(crate) const PEER_METADATA: &str = "io.istio.http.peer_metadata.Config";
    pub(crate) const ALPN: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
    pub(crate) const GRPC_STATS: &str = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";
    pub(crate) const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
    pub(crate) const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
    pub(crate) const ORIGINAL_DST: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    pub(crate) const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    pub(crate) const HTTP_INSPECTOR: &str =
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
    pub(crate) const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    pub(crate) const DOWNSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    pub(crate) const UPSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    pub(crate) const FILE_ACCESS_LOG: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
    pub(crate) const UUID_REQUEST_ID: &str = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";
    pub(crate) const PREVIOUS_HOSTS: &str =
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    pub(crate) const HTTP_PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
}

const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// An extension's configuration whose type is known by name only.
pub(crate) struct TypedConfig {
    /// `stats.PluginConfig`: the type URL after its last slash.
    pub(crate) type_name: String,
    body: Body,
}

enum Body {
    /// A serialised message.
    Wire(Vec<u8>),
    /// A message as a JSON object.
    Json(protobuf::Struct),
}

/// Source: xds/type/v3/typed_struct.proto.
#[derive(Clone, PartialEq, Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<protobuf::Struct>,
}

/// A message that a JSON object can be read into.
pub(crate) trait FromJson: Sized {
    /// Reads the proto JSON form.
    fn from_json(at: &FieldPath<'_>, json: protobuf::Struct) -> Result<Self, Rejection>;
}

impl TypedConfig {
    /// Opens an `Any`, and the `TypedStruct` in it if that is what it holds.
    ///
    /// # Errors
    /// The type is missing, or the `TypedStruct` does not decode.
    pub(crate) fn open(at: &FieldPath<'_>, any: Option<protobuf::Any>) -> Result<Self, Rejection> {
        let protobuf::Any { type_url, value } = at.required(any)?;
        let outer = type_name(&type_url);
        if !TYPED_STRUCTS.contains(&outer) {
            return Ok(Self {
                type_name: outer.to_owned(),
                body: Body::Wire(value),
            });
        }
        let TypedStruct { type_url, value } = decode(at, outer, &value)?;
        if type_url.is_empty() {
            return Err(at.field("type_url").reject("must name the type of the value"));
        }
        Ok(Self {
            type_name: type_name(&type_url).to_owned(),
            body: Body::Json(value.unwrap_or_default()),
        })
    }

    /// The message, of a type that only comes serialised.
    ///
    /// # Errors
    /// It does not decode, or it is a `TypedStruct` with content.
    pub(crate) fn message<M: Message + Default>(self, at: &FieldPath<'_>) -> Result<M, Rejection> {
        match self.body {
            Body::Wire(bytes) => decode(at, &self.type_name, &bytes),
            Body::Json(json) if json.fields.is_empty() => Ok(M::default()),
            Body::Json(_) => Err(at.reject(format!(
                "a TypedStruct of {} is not supported; write the message itself",
                self.type_name
            ))),
        }
    }

    /// The message, of a type that also comes as a `TypedStruct`.
    ///
    /// # Errors
    /// It does not decode, or the JSON object has a field that the type lacks.
    pub(crate) fn message_or_json<M: Message + Default + FromJson>(
        self,
        at: &FieldPath<'_>,
    ) -> Result<M, Rejection> {
        match self.body {
            Body::Wire(bytes) => decode(at, &self.type_name, &bytes),
            Body::Json(json) => M::from_json(&at.field("value"), json),
        }
    }

    /// Refuses the type: it is none of those that may stand here. `what` is `http filter`, `name` what the configuration calls it.
    pub(crate) fn reject(
        &self,
        at: &FieldPath<'_>,
        what: &str,
        name: &str,
        valid: &[&'static str],
    ) -> Rejection {
        let reason = format!("{what} {name:?} has the unknown type {:?}", self.type_name);
        at.reject_name(reason, &self.type_name, valid.iter().copied())
    }
}

/// Decodes a serialised message.
pub(crate) fn decode<M: Message + Default>(
    at: &FieldPath<'_>,
    type_name: &str,
    bytes: &[u8],
) -> Result<M, Rejection> {
    M::decode(bytes).map_err(|error| at.reject(format!("malformed {type_name}: {error}")))
}

/// The name in a type URL: what follows the last slash.
pub(crate) fn type_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}
