//! Which route a request takes.
//!
//! Built once from a [`RouteTableConfig`]; a stream loads the table once. Virtual hosts: exact name by hash, then the longest `*.suffix`,
//! then the longest `prefix.*`, then `*`; inside one the first route that matches. Source: route_components.proto `VirtualHost.domains`.
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};
use outrigger_model::route as model;
use outrigger_model::route::{ClusterSpec, PathMatch, RouteTableConfig};
use regex::Regex as TextRegex;
use regex::bytes::Regex;

use super::matcher::{HeaderMatcher, StringMatcher, full_match};
use crate::codec::RequestHead;
use crate::upstream::cluster_table::{ClusterCell, ClusterTable};
use crate::upstream::weighted::Weighted;

/// The cell that listeners hold: route discovery swaps what is in it.
#[derive(Debug)]
pub(crate) struct RouteCell {
    table: ArcSwap<RouteTable>,
}

impl RouteCell {
    /// A cell with its first table.
    pub(crate) fn new(table: RouteTable) -> Arc<Self> {
        Arc::new(Self {
            table: ArcSwap::from_pointee(table),
        })
    }

    /// Streams that begin from now on use `table`.
    pub(crate) fn set(&self, table: RouteTable) {
        self.table.store(Arc::new(table));
    }

    /// The table now.
    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<RouteTable>> {
        self.table.load()
    }
}

/// A compiled route table.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    hosts: Vec<Vec<Arc<Route>>>,
    exact: HashMap<Box<str>, usize>,
    /// Longest first.
    suffixes: Vec<(Box<str>, usize)>,
    /// Longest first.
    prefixes: Vec<(Box<str>, usize)>,
    any: Option<usize>,
    ignore_port: bool,
}

/// A compiled route with everything inherited from its virtual host and table.
#[derive(Debug)]
pub(crate) struct Route {
    /// For logs.
    pub(crate) name: Arc<str>,
    path: PathTest,
    rewrite: Option<Rewrite>,
    case_sensitive: bool,
    headers: Vec<HeaderMatcher>,
    query: Vec<(String, Option<StringMatcher>)>,
    /// What is done.
    pub(crate) action: Action,
    /// Span operation.
    pub(crate) decorator: Option<HeaderValue>,
    /// `x-envoy-attempt-count` goes upstream.
    pub(crate) include_attempt_count: bool,
    /// Header changes, innermost first: route, virtual host, table.
    pub(crate) headers_changes: Vec<model::HeaderMutations>,
    /// The retry policy of the route, else of its virtual host.
    pub(crate) retry: Option<model::RetryPolicy>,
}

#[derive(Debug)]
enum PathTest {
    Prefix(String),
    Exact(String),
    SeparatedPrefix(String),
    Regex(Regex),
}

/// How a route changes the path; the query stays.
#[derive(Debug)]
enum Rewrite {
    /// In place of what the route matched.
    Prefix(String),
    /// In place of every match.
    Regex(TextRegex, String),
}

/// The route asks for a path that is none.
#[derive(Debug)]
pub(crate) struct InvalidPath;

/// What a route does.
#[derive(Debug)]
pub(crate) enum Action {
    /// To a cluster.
    Forward(Box<Forward>),
    /// The client is sent elsewhere.
    Redirect(Box<model::Redirect>),
    /// Answered here.
    Direct {
        /// The status.
        status: StatusCode,
        /// The body.
        body: Bytes,
    },
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Its clusters; one when there is no choice.
    pub(crate) targets: Weighted<Target>,
    /// The rest as configured.
    pub(crate) config: model::Forward,
}

/// One possible cluster of a route.
#[derive(Debug)]
pub(crate) struct Target {
    /// The cluster.
    pub(crate) cluster: Arc<ClusterCell>,
    /// Header changes of this share.
    pub(crate) headers: model::HeaderMutations,
    /// The authority that this share is asked for.
    pub(crate) host: Option<HeaderValue>,
}

impl RouteTable {
    /// Compiles a table; cluster names become cells of `clusters`.
    ///
    /// # Errors
    /// A regular expression does not compile (the model refuses such before).
    pub(crate) fn new(config: &RouteTableConfig, clusters: &ClusterTable) -> Result<Self, regex::Error> {
        let mut table = Self {
            ignore_port: config.ignore_port_in_host_matching,
            ..Self::default()
        };
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                table.add_domain(domain, index);
            }
            let routes = host
                .routes
                .iter()
                .map(|route| Route::new(route, host, config, clusters).map(Arc::new));
            table.hosts.push(routes.collect::<Result<_, _>>()?);
        }
        table
            .suffixes
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
            .prefixes
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(table)
    }

    fn add_domain(&mut self, domain: &str, index: usize) {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            self.any = Some(index);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.push((suffix.into(), index));
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.push((prefix.into(), index));
        } else {
            self.exact.insert(domain.into(), index);
        }
    }

    /// The route of a request; `None`: not found.
    pub(crate) fn route(&self, head: &RequestHead) -> Option<&Arc<Route>> {
        let routes = self.hosts.get(self.virtual_host(head.authority.as_bytes())?)?;
        let (path, query) = (head.path.path(), head.path.query());
        routes
            .iter()
            .find(|route| route.matches(head, path, query.unwrap_or_default()))
    }

    fn virtual_host(&self, authority: &[u8]) -> Option<usize> {
        let host = std::str::from_utf8(authority).ok()?;
        let host = if self.ignore_port {
            without_port(host)
        } else {
            host
        };
        let lowered;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lowered = host.to_ascii_lowercase();
            lowered.as_str()
        } else {
            host
        };
        // A wildcard stands for at least one character.
        let wild = |len: usize| host.len() > len;
        self.exact
            .get(host)
            .or_else(|| {
                self.suffixes
                    .iter()
                    .find(|(s, _)| wild(s.len()) && host.ends_with(&**s))
                    .map(|(_, i)| i)
            })
            .or_else(|| {
                self.prefixes
                    .iter()
                    .find(|(p, _)| wild(p.len()) && host.starts_with(&**p))
                    .map(|(_, i)| i)
            })
            .copied()
            .or(self.any)
    }
}

/// `host:port` without the port; an IPv6 literal keeps its brackets. Source: Envoy `HeaderUtility::stripPortFromHost`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => host,
    }
}

impl Route {
    fn new(
        config: &model::Route,
        host: &model::VirtualHost,
        table: &RouteTableConfig,
        clusters: &ClusterTable,
    ) -> Result<Self, regex::Error> {
        let (action, retry) = match &config.action {
            model::RouteAction::Forward(forward) => (
                Action::Forward(Box::new(Forward::new(forward, clusters))),
                forward.retry_policy.clone().or_else(|| host.retry_policy.clone()),
            ),
            model::RouteAction::Redirect(redirect) => (Action::Redirect(redirect.clone()), None),
            model::RouteAction::DirectResponse { status, body } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::OK);
                (
                    Action::Direct {
                        status,
                        body: body.clone().into(),
                    },
                    None,
                )
            }
        };
        let query = config
            .matcher
            .query_parameters
            .iter()
            .map(|(name, test)| Ok((name.clone(), test.as_ref().map(StringMatcher::new).transpose()?)));
        Ok(Self {
            name: config.name.as_str().into(),
            path: PathTest::new(&config.matcher.path, config.matcher.case_sensitive)?,
            rewrite: Rewrite::new(&config.action)?,
            case_sensitive: config.matcher.case_sensitive,
            headers: config
                .matcher
                .headers
                .iter()
                .map(HeaderMatcher::new)
                .collect::<Result<_, _>>()?,
            query: query.collect::<Result<_, regex::Error>>()?,
            action,
            decorator: config
                .decorator_operation
                .as_deref()
                .and_then(|text| HeaderValue::from_str(text).ok()),
            include_attempt_count: host.include_request_attempt_count,
            headers_changes: [&config.headers, &host.headers, &table.headers]
                .into_iter()
                .filter(|changes| **changes != model::HeaderMutations::default())
                .cloned()
                .collect(),
            retry,
        })
    }

    /// The path after the route's rewrite, if it has one; the query stays.
    ///
    /// # Errors
    /// The rewrite makes something of it that no request may ask for.
    pub(crate) fn rewritten_path(&self, head: &RequestHead) -> Result<Option<PathAndQuery>, InvalidPath> {
        let whole = head.path.as_str();
        let path = match &self.rewrite {
            None => return Ok(None),
            Some(Rewrite::Prefix(replacement)) => {
                let matched = match &self.path {
                    PathTest::Prefix(text) | PathTest::Exact(text) | PathTest::SeparatedPrefix(text) => {
                        text.len()
                    }
                    PathTest::Regex(_) => head.path.path().len(),
                };
                format!("{replacement}{}", whole.get(matched..).unwrap_or_default())
            }
            Some(Rewrite::Regex(regex, substitution)) => {
                let path = head.path.path();
                let query = whole.get(path.len()..).unwrap_or_default();
                format!("{}{query}", regex.replace_all(path, substitution.as_str()))
            }
        };
        // A request line needs a path that begins with a slash; Envoy would send whatever comes out.
        match path.parse() {
            Ok(path) if whole_begins_with_slash(&path) => Ok(Some(path)),
            _ => Err(InvalidPath),
        }
    }

    fn matches(&self, head: &RequestHead, path: &str, query: &str) -> bool {
        self.path.matches(path, self.case_sensitive)
            && self.headers.iter().all(|header| header.matches(head))
            && self
                .query
                .iter()
                .all(|(name, test)| query_matches(query, name, test.as_ref()))
    }
}

fn whole_begins_with_slash(path: &PathAndQuery) -> bool {
    path.as_str().starts_with('/')
}

impl Rewrite {
    fn new(action: &model::RouteAction) -> Result<Option<Self>, regex::Error> {
        let regex = |rewrite: &model::RegexRewrite| {
            Ok(Some(Self::Regex(
                TextRegex::new(&rewrite.pattern)?,
                rewrite.substitution.clone(),
            )))
        };
        match action {
            model::RouteAction::Forward(forward) => match (&forward.prefix_rewrite, &forward.regex_rewrite) {
                (Some(prefix), _) => Ok(Some(Self::Prefix(prefix.clone()))),
                (None, Some(rewrite)) => regex(rewrite),
                (None, None) => Ok(None),
            },
            model::RouteAction::Redirect(redirect) => match &redirect.path {
                Some(model::PathRewrite::Prefix(prefix)) => Ok(Some(Self::Prefix(prefix.clone()))),
                Some(model::PathRewrite::Regex(rewrite)) => regex(rewrite),
                Some(model::PathRewrite::Whole(_)) | None => Ok(None),
            },
            model::RouteAction::DirectResponse { .. } => Ok(None),
        }
    }
}

impl PathTest {
    fn new(config: &PathMatch, case_sensitive: bool) -> Result<Self, regex::Error> {
        let text = |text: &String| {
            if case_sensitive {
                text.clone()
            } else {
                text.to_ascii_lowercase()
            }
        };
        Ok(match config {
            PathMatch::Prefix(prefix) => PathTest::Prefix(text(prefix)),
            PathMatch::Exact(path) => PathTest::Exact(text(path)),
            PathMatch::SeparatedPrefix(prefix) => PathTest::SeparatedPrefix(text(prefix)),
            PathMatch::Regex(regex) => PathTest::Regex(full_match(regex)?),
        })
    }

    fn matches(&self, path: &str, case_sensitive: bool) -> bool {
        let lowered;
        let path = if case_sensitive || matches!(self, PathTest::Regex(_)) {
            path
        } else {
            lowered = path.to_ascii_lowercase();
            lowered.as_str()
        };
        match self {
            PathTest::Prefix(prefix) => path.starts_with(prefix.as_str()),
            PathTest::Exact(exact) => path == exact,
            PathTest::SeparatedPrefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            PathTest::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

fn query_matches(query: &str, name: &str, test: Option<&StringMatcher>) -> bool {
    let value = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    value.is_some_and(|value| test.is_none_or(|test| test.matches(value.as_bytes())))
}

impl Forward {
    fn new(config: &model::Forward, clusters: &ClusterTable) -> Self {
        let target = |name: &str, headers: &model::HeaderMutations, host: Option<&str>| Target {
            cluster: clusters.cell(name),
            headers: headers.clone(),
            host: host.and_then(|host| HeaderValue::from_str(host).ok()),
        };
        let targets = match &config.cluster {
            ClusterSpec::Single(name) => [(1, target(name, &model::HeaderMutations::default(), None))]
                .into_iter()
                .collect(),
            ClusterSpec::Weighted(shares) => shares
                .iter()
                .map(|share| {
                    let host = share.host_rewrite.as_deref();
                    (share.weight, target(&share.name, &share.headers, host))
                })
                .collect(),
        };
        Self {
            targets,
            config: config.clone(),
        }
    }
}

#[cfg(test)]
#[path = "route_table_tests.rs"]
mod tests;
