//! What few connection managers do to heads besides. Source: http_connection_manager.proto.
use envoy_types::pb::envoy::config::core::v3::{self as core, scheme_header_transformation::Transformation};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    self as pb,
    http_connection_manager::{self as hcm, StripPortMode, proxy_status_config::ProxyName},
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation as EarlyHeaderMutation;
use ipnet::IpNet;

use super::client::ClientFinder;
use crate::address;
use crate::any::{TypedConfig, types};
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::http_filter::header_mutation::HeaderStep;

/// What they ask for; the default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeadExtras {
    /// Who `via` says was passed, in both directions; empty: nobody.
    pub via_name: String,
    /// The client is not added to `x-forwarded-for`.
    pub keeps_forwarded_for: bool,
    /// `x-forwarded-port` tells the port that the client reached, unless somebody trusted has told it.
    pub tells_port: bool,
    /// Responses have the `x-request-id` of their request.
    pub answers_request_id: bool,
    /// Requests have the name of this proxy and of its cluster (`add_user_agent`).
    pub names_itself: bool,
    /// What `:scheme` becomes; `None`: it stays.
    pub new_scheme: Option<NewScheme>,
    /// Clients of these addresses are inside: what they say of themselves stays.
    pub internal_ranges: Vec<IpNet>,
    /// `proxy-status` in responses that went wrong; `None`: it is not there.
    pub proxy_status: Option<ProxyStatus>,
    /// Clients that a balancer took on these ports spoke https.
    pub https_ports: Vec<u16>,
    /// Clients that a balancer took on these ports spoke http.
    pub http_ports: Vec<u16>,
    /// A request of HTTP/1 that is refused for what its head says does not end its connection.
    pub keeps_connections: bool,
    /// Changes of requests before anything else is done to their headers, in order.
    pub early_steps: Vec<HeaderStep>,
    /// As many addresses at the end of `x-forwarded-for` are those of proxies that are trusted.
    pub trusted_hops: u32,
    /// How the client's address is found instead; the first that finds one counts.
    pub client_finders: Vec<ClientFinder>,
    /// What becomes of the port in `:authority`.
    pub host_port: HostPort,
    /// The dot at the end of the name in `:authority` goes.
    pub strips_host_dot: bool,
}

/// Which ports go from `:authority` before its route is sought. Source: http_connection_manager.proto `strip_matching_host_port`,
/// `strip_any_host_port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostPort {
    /// None does.
    #[default]
    Stays,
    /// That on which the client was taken.
    GoesIfOwn,
    /// Whichever it is.
    Goes,
}

/// Source: protocol.proto `SchemeHeaderTransformation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewScheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
    /// That of the connection to the server.
    OfServer,
}

/// What `proxy-status` tells. Source: RFC 9209.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyStatus {
    /// Who tells it.
    pub teller: Teller,
    /// `details=`.
    pub shows_details: bool,
    /// Why the connection ended goes into them.
    pub shows_termination: bool,
    /// The response flags go into them.
    pub shows_flags: bool,
    /// The status becomes what the RFC recommends.
    pub changes_status: bool,
}

/// Whose name it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Teller {
    /// That of the `server` header.
    Server,
    /// That of this node.
    Node,
    /// This.
    Named(String),
}

impl NewScheme {
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        proto: Option<core::SchemeHeaderTransformation>,
    ) -> Result<Option<Self>, Rejection> {
        let Some(proto) = proto else { return Ok(None) };
        verdicts!(at, proto => core::SchemeHeaderTransformation {
            supported { transformation }
            partly { match_upstream: "towards the server; logs and headers that a route adds show the scheme of the client" }
        });
        choices!(Transformation { supported { SchemeToOverwrite } });
        match transformation {
            Some(Transformation::SchemeToOverwrite(scheme)) => match scheme.as_str() {
                "http" => Ok(Some(Self::Http)),
                "https" => Ok(Some(Self::Https)),
                other => Err(at
                    .field("scheme_to_overwrite")
                    .reject(format!("{other:?} is neither http nor https"))),
            },
            None => Ok(match_upstream.then_some(Self::OfServer)),
        }
    }
}

impl HostPort {
    /// As Envoy, which refuses both.
    pub(super) fn from_proto(
        at: &FieldPath<'_>,
        own: bool,
        any: Option<StripPortMode>,
    ) -> Result<Self, Rejection> {
        choices!(StripPortMode { supported { StripAnyHostPort } });
        let any = matches!(any, Some(StripPortMode::StripAnyHostPort(true)));
        match (own, any) {
            (true, true) => Err(at
                .field("strip_any_host_port")
                .reject("only one of it and strip_matching_host_port can be set")),
            (true, false) => Ok(Self::GoesIfOwn),
            (false, true) => Ok(Self::Goes),
            (false, false) => Ok(Self::Stays),
        }
    }
}

impl ProxyStatus {
    pub(super) fn from_proto(proto: Option<hcm::ProxyStatusConfig>) -> Option<Self> {
        let proto = proto?;
        verdicts!((), proto => hcm::ProxyStatusConfig {
            supported {
                remove_details, remove_connection_termination_details, remove_response_flags, set_recommended_response_code,
                proxy_name,
            }
        });
        choices!(ProxyName { supported { UseNodeId, LiteralProxyName } });
        Some(Self {
            teller: match proxy_name {
                Some(ProxyName::UseNodeId(true)) => Teller::Node,
                Some(ProxyName::LiteralProxyName(name)) => Teller::Named(name),
                Some(ProxyName::UseNodeId(false)) | None => Teller::Server,
            },
            shows_details: !remove_details,
            shows_termination: !remove_connection_termination_details,
            shows_flags: !remove_response_flags,
            changes_status: set_recommended_response_code,
        })
    }
}

/// The changes of all extensions, one after the other.
pub(super) fn early_steps(
    at: FieldPath<'_>,
    protos: Vec<core::TypedExtensionConfig>,
) -> Result<Vec<HeaderStep>, Rejection> {
    let mut steps = Vec::new();
    for (index, proto) in protos.into_iter().enumerate() {
        let at = at.index(index);
        verdicts!(at, proto => core::TypedExtensionConfig {
            supported { typed_config }
            partly { name: "in rejections; what an extension does is in the type of its config" }
        });
        let at = at.field("typed_config");
        let config = TypedConfig::open(&at, typed_config)?;
        if config.type_name != types::EARLY_HEADER_MUTATION {
            return Err(config.reject(
                &at,
                "early header mutation",
                &name,
                &[types::EARLY_HEADER_MUTATION],
            ));
        }
        verdicts!((), config.message(&at)? => EarlyHeaderMutation { supported { mutations } });
        steps.extend(HeaderStep::list(at.field("mutations"), mutations)?);
    }
    Ok(steps)
}

/// The ranges of `internal_address_config`.
pub(super) fn internal_ranges(
    at: &FieldPath<'_>,
    proto: Option<hcm::InternalAddressConfig>,
) -> Result<Vec<IpNet>, Rejection> {
    verdicts!(at, proto.unwrap_or_default() => hcm::InternalAddressConfig {
        supported { cidr_ranges }
        inert { unix_sockets: "no listener is on a socket of this machine's file system" }
    });
    address::ranges(at.field("cidr_ranges"), cidr_ranges)
}

/// The ports of https and of http.
pub(super) fn ports(
    at: &FieldPath<'_>,
    proto: Option<pb::ForwardProtoConfig>,
) -> Result<[Vec<u16>; 2], Rejection> {
    verdicts!(at, proto.unwrap_or_default() => pb::ForwardProtoConfig {
        supported { https_destination_ports, http_destination_ports }
    });
    let list = |name: &str, ports: Vec<u32>| {
        let field = at.field(name);
        let ports = ports.into_iter().enumerate();
        ports
            .map(|(index, port)| field.index(index).port(port))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok([
        list("https_destination_ports", https_destination_ports)?,
        list("http_destination_ports", http_destination_ports)?,
    ])
}
