//! `google.protobuf.Any` and the `TypedStruct`s inside, and the names of every type that may stand there.
//!
//! A `TypedStruct` holds its message as a JSON object. Istio writes its own filters so, and they go straight into the messages that they
//! name. Users of EnvoyFilter write Envoy's so: those go through descriptors, built for that one conversion. Source: xds/type/v3/typed_struct.proto (udpa/type/v1 is the same on the wire).
use envoy_types::pb::google::protobuf::{self, value::Kind};
use prost::Message;
use prost_reflect::DynamicMessage;

use crate::dump::Descriptors;
use crate::extension::{self, Builder};
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
    pub(crate) const CORS_POLICY: &str = "envoy.extensions.filters.http.cors.v3.CorsPolicy";
    pub(crate) const LOCAL_RATE_LIMIT: &str =
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    pub(crate) const GLOBAL_RATE_LIMIT: &str = "envoy.extensions.filters.http.ratelimit.v3.RateLimit";
    pub(crate) const GLOBAL_RATE_LIMIT_PER_ROUTE: &str =
        "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";
    pub(crate) const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
    pub(crate) const HTTP_RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
    pub(crate) const JWT_AUTHN: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    pub(crate) const HTTP_EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
    pub(crate) const NETWORK_RBAC: &str = "envoy.extensions.filters.network.rbac.v3.RBAC";
    pub(crate) const NETWORK_EXT_AUTHZ: &str = "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz";
    pub(crate) const HTTP_RBAC_PER_ROUTE: &str = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute";
    pub(crate) const JWT_AUTHN_PER_ROUTE: &str = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig";
    pub(crate) const HTTP_EXT_AUTHZ_PER_ROUTE: &str =
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute";
    pub(crate) const URI_TEMPLATE: &str =
        "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";
    pub(crate) const PROXY_PROTOCOL: &str =
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
    pub(crate) const ORIGINAL_SRC: &str = "envoy.extensions.filters.listener.original_src.v3.OriginalSrc";
    pub(crate) const LISTENER_LOCAL_RATE_LIMIT: &str =
        "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit";
    pub(crate) const CONNECTION_LIMIT: &str =
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
    pub(crate) const NETWORK_LOCAL_RATE_LIMIT: &str =
        "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
    pub(crate) const MONGO_PROXY: &str = "envoy.extensions.filters.network.mongo_proxy.v3.MongoProxy";
    pub(crate) const PREVIOUS_PRIORITIES: &str =
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    pub(crate) const ALLOW_LISTED_ROUTES: &str =
        "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig";
    pub(crate) const PREVIOUS_ROUTES: &str =
        "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig";
    pub(crate) const SAFE_CROSS_SCHEME: &str =
        "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig";
    pub(crate) const HEALTH_CHECK: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";
    pub(crate) const BUFFER: &str = "envoy.extensions.filters.http.buffer.v3.Buffer";
    pub(crate) const BUFFER_PER_ROUTE: &str = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute";
    pub(crate) const HEADER_MUTATION: &str =
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
    pub(crate) const HEADER_MUTATION_PER_ROUTE: &str =
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";
    pub(crate) const COMPRESSOR: &str = "envoy.extensions.filters.http.compressor.v3.Compressor";
    pub(crate) const COMPRESSOR_PER_ROUTE: &str =
        "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute";
    pub(crate) const DECOMPRESSOR: &str = "envoy.extensions.filters.http.decompressor.v3.Decompressor";
    pub(crate) const GZIP_COMPRESSOR: &str = "envoy.extensions.compression.gzip.compressor.v3.Gzip";
    pub(crate) const GZIP_DECOMPRESSOR: &str = "envoy.extensions.compression.gzip.decompressor.v3.Gzip";
    pub(crate) const CSRF: &str = "envoy.extensions.filters.http.csrf.v3.CsrfPolicy";
    pub(crate) const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
    pub(crate) const ORIGINAL_DST: &str = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
    pub(crate) const TLS_INSPECTOR: &str = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
    pub(crate) const HTTP_INSPECTOR: &str =
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector";
    pub(crate) const DOWNSTREAM_CONNECTIONS: &str =
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";
    pub(crate) const RAW_BUFFER: &str = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    pub(crate) const DOWNSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    pub(crate) const UPSTREAM_TLS: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    pub(crate) const UPSTREAM_PROXY_PROTOCOL: &str =
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
    pub(crate) const FILE_ACCESS_LOG: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
    pub(crate) const OPEN_TELEMETRY_ACCESS_LOG: &str =
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig";
    pub(crate) const HTTP_GRPC_ACCESS_LOG: &str =
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig";
    pub(crate) const TCP_GRPC_ACCESS_LOG: &str =
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig";
    pub(crate) const CEL_FILTER: &str = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter";
    pub(crate) const ZIPKIN: &str = "envoy.config.trace.v3.ZipkinConfig";
    pub(crate) const OPEN_TELEMETRY: &str = "envoy.config.trace.v3.OpenTelemetryConfig";
    pub(crate) const STATEFUL_SESSION: &str =
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSession";
    pub(crate) const STATEFUL_SESSION_PER_ROUTE: &str =
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute";
    pub(crate) const COOKIE_SESSION: &str =
        "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState";
    pub(crate) const HEADER_SESSION: &str =
        "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState";
    pub(crate) const GRPC_WEB: &str = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb";
    pub(crate) const CARES_DNS_RESOLVER: &str =
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
    pub(crate) const LEAST_REQUEST: &str =
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
    pub(crate) const ROUND_ROBIN: &str = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
    pub(crate) const RANDOM: &str = "envoy.extensions.load_balancing_policies.random.v3.Random";
    pub(crate) const RING_HASH: &str = "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash";
    pub(crate) const MAGLEV: &str = "envoy.extensions.load_balancing_policies.maglev.v3.Maglev";
    pub(crate) const OVERRIDE_HOST: &str =
        "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost";
    pub(crate) const SUBSET: &str = "envoy.extensions.load_balancing_policies.subset.v3.Subset";
    pub(crate) const PEAK_EWMA: &str = "envoy.extensions.load_balancing_policies.peak_ewma.v3alpha.PeakEwma";
    pub(crate) const CLUSTER_PROVIDED: &str =
        "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided";
    pub(crate) const PRESERVE_CASE: &str =
        "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";
    pub(crate) const EARLY_HEADER_MUTATION: &str =
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation";
    pub(crate) const CLIENT_BY_XFF: &str = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
    pub(crate) const CLIENT_BY_HEADER: &str =
        "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig";
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

    /// The message.
    ///
    /// # Errors
    /// It does not decode, or the JSON object has a field that the type lacks or a value that its type does not allow.
    pub(crate) fn message<M: Message + Default>(self, at: &FieldPath<'_>) -> Result<M, Rejection> {
        match self.body {
            Body::Wire(bytes) => decode(at, &self.type_name, &bytes),
            Body::Json(json) if json.fields.is_empty() => Ok(M::default()),
            Body::Json(json) => {
                let bytes = encode_json(&at.field("value"), &self.type_name, json)?;
                decode(at, &self.type_name, &bytes)
            }
        }
    }

    /// The message, of one of Istio's types.
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

    /// Refuses a filter that keeps requests out and whose behaviour does not exist yet.
    pub(crate) fn reject_policy(&self, at: &FieldPath<'_>, what: &str, name: &str) -> Rejection {
        at.reject(format!(
            "{what} {name:?} of type {:?} has no behaviour here, and without it requests that it keeps out would be let in: \
             the security issue builds it",
            self.type_name
        ))
    }

    /// Refuses the type: it is none of those that may stand here. `what` is `http filter`, `name` what the configuration calls it.
    pub(crate) fn reject(
        &self,
        at: &FieldPath<'_>,
        what: &str,
        name: &str,
        valid: &[&'static str],
    ) -> Rejection {
        let type_name = &self.type_name;
        match extension::builder(type_name) {
            Some(Builder::Issue(issue)) => {
                return at.reject(format!(
                    "{what} {name:?} of type {type_name:?} has no behaviour here: the {issue} issue builds it"
                ));
            }
            Some(Builder::Never(why)) => {
                return at.reject(format!(
                    "{what} {name:?} of type {type_name:?} has no behaviour here, and none is planned: {why}"
                ));
            }
            None => {}
        }
        let reason = format!("{what} {name:?} has the unknown type {type_name:?}");
        at.reject_name(reason, &self.type_name, valid.iter().copied())
    }
}

/// Serialises a message that came as JSON.
///
/// Milliseconds, for its descriptors are built first: istiod itself sends none that needs them, only users of EnvoyFilter do.
fn encode_json(at: &FieldPath<'_>, type_name: &str, json: protobuf::Struct) -> Result<Vec<u8>, Rejection> {
    let descriptors = Descriptors::extensions().map_err(|error| at.reject(error.to_string()))?;
    let Some(message) = descriptors.message(type_name) else {
        return Err(at.reject(format!(
            "a TypedStruct of {type_name} is not supported; write the message itself"
        )));
    };
    let json = json_object(json);
    match DynamicMessage::deserialize(message, json) {
        Ok(message) => Ok(message.encode_to_vec()),
        Err(error) => Err(at.reject(format!("is no {type_name}: {error}"))),
    }
}

fn json_object(json: protobuf::Struct) -> serde_json::Value {
    let fields = json.fields.into_iter();
    fields.map(|(key, value)| (key, json_value(value))).collect()
}

/// Not deeper than protobuf's decoder goes, which has read it.
fn json_value(value: protobuf::Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        // Whole numbers as such: protobuf's integers take no fraction, not even `.0`.
        Some(Kind::NumberValue(value)) if value.fract() == 0.0 && value.abs() < 9e15 => (value as i64).into(),
        Some(Kind::NumberValue(value)) => value.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::StructValue(json)) => json_object(json),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json_value).collect(),
    }
}

/// Decodes a serialised message.
pub(crate) fn decode<M: Message + Default>(
    at: &FieldPath<'_>,
    type_name: &str,
    bytes: &[u8],
) -> Result<M, Rejection> {
    M::decode(bytes).map_err(|error| {
        let error = error.to_string();
        let mut rejection = at.reject(format!("malformed {type_name}: {error}"));
        for field in broken_field(&error).collect::<Vec<_>>().into_iter().rev() {
            if !rejection.path.is_empty() {
                rejection.path.push('.');
            }
            rejection.path.push_str(field);
        }
        rejection
    })
}

/// The field that does not decode and those it is in, from the inside out; prost only tells them in its text:
/// `…: FilterChain.filters: Listener.filter_chains: …`.
fn broken_field(error: &str) -> impl Iterator<Item = &str> {
    let is_word = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    error.split(": ").filter_map(move |part| {
        let (message, field) = part.split_once('.')?;
        (is_word(message) && is_word(field) && !field.is_empty()).then_some(field)
    })
}

/// The name in a type URL: what follows the last slash.
pub(crate) fn type_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}
