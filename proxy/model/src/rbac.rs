//! Rules of role-based access control: who may do what. Shared by the HTTP and the network filter.
//! Source: envoy/config/rbac/v3/rbac.proto; what Istio sets: contract §1.9. Awaits the security issue.
mod from_proto;

use ipnet::IpNet;

use crate::matcher::metadata::{FilterStateMatcher, MetadataMatcher};
use crate::matcher::{HeaderMatcher, StringMatcher};

/// A set of policies and what it means to match one. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// What a match means.
    pub action: Action,
    /// By name; the first that matches, in the order of names, is the one that is told of.
    pub policies: Vec<(String, Policy)>,
}

/// Source: rbac.proto `RBAC.Action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Only what matches may pass; an empty set lets nobody pass.
    Allow,
    /// What matches may not pass; an empty set lets everybody pass.
    Deny,
    /// Everybody passes; what matches is noted for the access log.
    Log,
}

/// Matches when one permission and one principal do, and the condition holds. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
    /// There is a CEL condition, as a syntax tree: Istio sends none.
    pub has_condition: bool,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these.
    And(Vec<Permission>),
    /// One of these.
    Or(Vec<Permission>),
    /// Not this.
    Not(Box<Permission>),
    /// A request header; never matches a TCP connection.
    Header(HeaderMatcher),
    /// The path without the query; never matches a TCP connection.
    UrlPath(StringMatcher),
    /// The path by a template such as `/a/{*}/{**}`; never matches a TCP connection.
    UriTemplate(String),
    /// The address that was dialled.
    DestinationIp(IpNet),
    /// The port that was dialled, in `start..end`.
    DestinationPort {
        /// First inside.
        start: u32,
        /// First outside, at most 65536.
        end: u32,
    },
    /// Dynamic metadata, or the route's.
    Metadata(SourcedMetadata),
    /// The server name of the ClientHello.
    RequestedServerName(StringMatcher),
}

/// Who does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Anybody.
    Any,
    /// All of these.
    And(Vec<Principal>),
    /// One of these.
    Or(Vec<Principal>),
    /// Not this.
    Not(Box<Principal>),
    /// The client's certificate: a URI SAN, else a DNS SAN, else the subject; `None`: any that was verified.
    Authenticated(Option<StringMatcher>),
    /// An address of the client.
    Ip {
        /// Which one.
        of: ClientAddress,
        /// Where it must be.
        range: IpNet,
    },
    /// A request header; never matches a TCP connection.
    Header(HeaderMatcher),
    /// The path without the query; never matches a TCP connection.
    UrlPath(StringMatcher),
    /// Dynamic metadata, or the route's.
    Metadata(SourcedMetadata),
    /// Filter state: Istio matches the peer's identity by it.
    FilterState(FilterStateMatcher),
}

/// The client's address, as seen from different sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// Of the connection.
    Direct,
    /// After X-Forwarded-For and the PROXY protocol.
    Remote,
    /// The deprecated `source_ip`: of the connection, after the PROXY protocol.
    Source,
}

/// A metadata matcher and whose metadata it looks at. Awaits the security issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcedMetadata {
    /// What is looked for.
    pub matcher: MetadataMatcher,
    /// The route's metadata; false: the stream's dynamic metadata.
    pub of_route: bool,
}
