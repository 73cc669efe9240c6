//! TCP through an HTTP upstream. Source: tcp_proxy.proto `TunnelingConfig`.
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy as pb;

use crate::access_log::{FormatPart, format};
use crate::field::{FieldPath, Rejection, verdicts};
use crate::hcm;
use crate::route::{HeaderAddition, header_additions};

/// How the tunnel is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `:authority` of the request.
    pub tunnel_host: Vec<FormatPart>,
    /// It is a POST to this path; `None`: a CONNECT.
    pub post_path: Option<String>,
    /// Headers of the request.
    pub tunnel_headers: Vec<HeaderAddition>,
    /// It has an id of its own, in this header.
    pub request_id_header: Option<String>,
}

/// Envoy: `headers_to_add` has `max_items: 1000`.
const MAX_HEADERS: usize = 1000;

impl Tunnel {
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::TunnelingConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::TunnelingConfig {
            supported { hostname, use_post, headers_to_add, post_path, request_id_extension, request_id_header }
            unsupported {
                propagate_response_headers: "telemetry", propagate_response_trailers: "telemetry",
                request_id_metadata_key: "telemetry",
            }
            refused { formatters: "no formatter extension exists here" }
        });
        let field = at.field("headers_to_add");
        if headers_to_add.len() > MAX_HEADERS {
            return Err(field.reject(format!("has {} items; at most 1000", headers_to_add.len())));
        }
        if !post_path.is_empty() && !use_post {
            return Err(at.field("post_path").reject("is for use_post"));
        }
        if use_post && !post_path.is_empty() && !post_path.starts_with('/') {
            return Err(at.field("post_path").reject("does not begin with \"/\""));
        }
        let has_id = request_id_extension.is_some();
        hcm::request_id(&at.field("request_id_extension"), request_id_extension)?;
        let request_id_header = match request_id_header.as_str() {
            "" => "x-request-id".to_owned(),
            name => name.to_ascii_lowercase(),
        };
        let host = at.field("hostname");
        Ok(Self {
            tunnel_host: format::parse(&host, &host.not_empty(hostname)?)?,
            post_path: use_post.then(|| match post_path.as_str() {
                "" => "/".to_owned(),
                _ => post_path,
            }),
            tunnel_headers: header_additions(field, headers_to_add)?,
            request_id_header: has_id.then_some(request_id_header),
        })
    }
}
