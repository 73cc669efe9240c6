//! What a request hashes to, for load balancers that go by it. Asked only by those.
//!
//! xxHash64 of each part, mixed as Envoy mixes them, so that the same request goes to the same host behind either proxy.
//! Source: route_components.proto `RouteAction.HashPolicy`; Envoy `Http::HashPolicyImpl`.
use std::net::IpAddr;

use http::HeaderValue;
use outrigger_model::route::{HashKey, HashPolicy};
use regex::Regex;
use twox_hash::XxHash64;

use super::route_table::{cookie_value, query_value};
use crate::codec::RequestHead;
use crate::telemetry::stream_info::StreamInfo;

/// The policies of a route, in order.
#[derive(Debug)]
pub(super) struct HashPolicies(Vec<Policy>);

#[derive(Debug)]
struct Policy {
    key: Key,
    is_terminal: bool,
}

#[derive(Debug)]
enum Key {
    Header {
        name: String,
        rewrite: Option<(Regex, String)>,
    },
    Cookie {
        name: String,
        /// What follows the value in the cookie that is made; `None`: none is made.
        made: Option<String>,
    },
    SourceIp,
    QueryParameter(String),
    /// Says nothing: there is no such object, or no address is wanted.
    Nothing,
}

/// A hash, and the cookies that the client is to have.
#[derive(Debug, Default)]
pub(super) struct Hashed {
    pub(super) hash: Option<u64>,
    pub(super) set_cookies: Vec<HeaderValue>,
}

impl HashPolicies {
    /// # Errors
    /// A regular expression does not compile.
    pub(super) fn new(configs: &[HashPolicy]) -> Result<Self, regex::Error> {
        configs
            .iter()
            .map(|config| {
                Ok(Policy {
                    key: Key::new(&config.key)?,
                    is_terminal: config.is_terminal,
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Hashes a request.
    pub(super) fn hash(&self, head: &RequestHead, info: &StreamInfo) -> Hashed {
        let mut hashed = Hashed::default();
        for policy in &self.0 {
            if let Some(new) = policy.key.hash(head, info, &mut hashed.set_cookies) {
                // The rotation makes the order count, and keeps equal parts from cancelling each other.
                hashed.hash = Some(hashed.hash.map_or(new, |old| old.rotate_left(1) ^ new));
            }
            if policy.is_terminal && hashed.hash.is_some() {
                break;
            }
        }
        hashed
    }
}

/// What a connection hashes to by its client's address. Source: Envoy `Network::HashPolicyImpl`.
pub(crate) fn source_hash(client: IpAddr) -> u64 {
    hash(client.to_string().as_bytes())
}

fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

impl Key {
    fn new(config: &HashKey) -> Result<Self, regex::Error> {
        Ok(match config {
            HashKey::Header { name, rewrite } => Self::Header {
                name: name.clone(),
                rewrite: rewrite
                    .as_ref()
                    .map(|rewrite| Ok((Regex::new(&rewrite.pattern)?, rewrite.substitution.clone())))
                    .transpose()?,
            },
            HashKey::Cookie {
                name,
                ttl,
                path,
                attributes,
            } => Self::Cookie {
                name: name.clone(),
                made: ttl.map(|ttl| cookie_tail(ttl.as_secs(), path, attributes)),
            },
            HashKey::SourceIp(true) => Self::SourceIp,
            HashKey::QueryParameter(name) => Self::QueryParameter(name.clone()),
            HashKey::SourceIp(false) | HashKey::FilterState(_) => Self::Nothing,
        })
    }

    fn hash(&self, head: &RequestHead, info: &StreamInfo, set_cookies: &mut Vec<HeaderValue>) -> Option<u64> {
        match self {
            Self::Header { name, rewrite } => header_hash(head, name, rewrite.as_ref()),
            Self::Cookie { name, made } => match cookie_value(head, name) {
                Some(value) if !value.is_empty() => Some(hash(value)),
                _ => {
                    let tail = made.as_ref()?;
                    let connection = &info.connection;
                    let ends = format!("{}{}", connection.remote_address, connection.local_address);
                    let value = format!("{:016x}", hash(ends.as_bytes()));
                    set_cookies.extend(HeaderValue::from_str(&format!("{name}=\"{value}\"{tail}")));
                    Some(hash(value.as_bytes()))
                }
            },
            Self::SourceIp => Some(source_hash(info.downstream_remote_address().ip())),
            Self::QueryParameter(name) => {
                query_value(head.path.query()?, name).map(|value| hash(value.as_bytes()))
            }
            Self::Nothing => None,
        }
    }
}

/// Several values of one header hash to the same in any order.
fn header_hash(head: &RequestHead, name: &str, rewrite: Option<&(Regex, String)>) -> Option<u64> {
    let rewritten = |value: &[u8]| match rewrite {
        None => value.to_vec(),
        Some((regex, substitution)) => {
            let text = String::from_utf8_lossy(value);
            regex
                .replace_all(&text, substitution.as_str())
                .into_owned()
                .into_bytes()
        }
    };
    let mut values: Vec<Vec<u8>> = match name.starts_with(':') || name == "host" {
        true => head.header(name).map(rewritten).into_iter().collect(),
        false => {
            let values = head.headers.get_all(name).iter();
            values.map(|value| rewritten(value.as_bytes())).collect()
        }
    };
    values.sort_unstable();
    values.into_iter().fold(None, |seed, value| {
        Some(XxHash64::oneshot(seed.unwrap_or(0), &value))
    })
}

/// What follows a cookie's value. Source: Envoy `Http::Utility::makeSetCookieValue`.
pub(super) fn cookie_tail(max_age: u64, path: &str, attributes: &[(String, String)]) -> String {
    let mut tail = String::new();
    if max_age > 0 {
        tail.push_str(&format!("; Max-Age={max_age}"));
    }
    if !path.is_empty() {
        tail.push_str(&format!("; Path={path}"));
    }
    for (name, value) in attributes {
        match value.is_empty() {
            true => tail.push_str(&format!("; {name}")),
            false => tail.push_str(&format!("; {name}={value}")),
        }
    }
    tail.push_str("; HttpOnly");
    tail
}
