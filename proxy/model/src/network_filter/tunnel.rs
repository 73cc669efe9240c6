//! TCP through an HTTP CONNECT. What it says is checked, and then its listener is refused: the bytes would go without the tunnel.
//! Source: tcp_proxy.proto `TunnelingConfig`. Awaits the traffic issue.
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy as pb;

use crate::field::{FieldPath, Rejection, verdicts};
use crate::route::{HeaderAddition, header_additions};

/// How the tunnel is asked for. Awaits the traffic issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// `:authority` of the CONNECT; may hold commands.
    pub hostname: String,
    /// By POST; false: by CONNECT.
    pub use_post: bool,
    /// Path of the POST; `/` unless set.
    pub post_path: String,
    /// Headers of the request.
    pub headers: Vec<HeaderAddition>,
}

/// Envoy: `headers_to_add` has `max_items: 1000`.
const MAX_HEADERS: usize = 1000;

impl Tunnel {
    pub(crate) fn from_proto(at: &FieldPath<'_>, proto: pb::TunnelingConfig) -> Result<Self, Rejection> {
        verdicts!(at, proto => pb::TunnelingConfig {
            awaited "traffic" { hostname, use_post, headers_to_add, post_path }
            unsupported {
                propagate_response_headers: "traffic", propagate_response_trailers: "traffic", request_id_extension: "traffic",
                request_id_header: "traffic", request_id_metadata_key: "traffic",
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
        Ok(Self {
            hostname: at.field("hostname").not_empty(hostname)?,
            use_post,
            post_path,
            headers: header_additions(field, headers_to_add)?,
        })
    }
}

/// Why a tunnel is refused: what is wrong with it, else that it has no behaviour.
pub(super) fn refuse(at: &FieldPath<'_>, proto: pb::TunnelingConfig) -> Rejection {
    let rejection = at.reject(
        "is not supported, and ignoring it would send the bytes without the tunnel: the traffic issue builds it",
    );
    Tunnel::from_proto(at, proto).err().unwrap_or(rejection)
}
