//! Which route a request takes.
//!
//! Built once from a [`RouteTableConfig`]; a stream loads the table once. A virtual host ([`hosts`]), inside it the first route whose
//! [`criteria`] are met; [`index`] spares the look at routes for other paths.
mod criteria;
mod forward;
mod hosts;
mod index;
mod retries;
mod tls_only;

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use outrigger_model::route as model;
use outrigger_model::route::RouteTableConfig;
use regex::Regex as TextRegex;

pub(crate) use self::criteria::Asked;
use self::criteria::Criteria;
pub(super) use self::criteria::{QueryTest, cookie_value, query_value};
pub(super) use self::forward::ClusterRef;
pub(crate) use self::forward::{Forward, Target};
use self::hosts::Hosts;
use self::index::Index;
pub(crate) use self::retries::Retries;
use self::tls_only::TlsOnly;
use super::extras::INTERNAL;
use super::filter::{Level, RouteLimits, Settings};
use super::header_changes::HeaderChanges;
use super::local_reply::body_format::BodyFormat;
use super::router::mirror::Mirror;
use super::stream::view;
use crate::codec::RequestHead;
use crate::stats::Registry;
use crate::telemetry::format::{Entry, LineFormat};
use crate::telemetry::stream_info::StreamInfo;
use crate::upstream::cluster_table::ClusterTable;

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
    domains: Hosts,
    hosts: Vec<VirtualHost>,
    /// Its value is the domain, not the authority.
    host_header: Option<String>,
    ignore_path_parameters: bool,
    /// Only clients inside may send these.
    internal_only: Box<[HeaderName]>,
}

/// The routes of a virtual host, in order.
#[derive(Debug)]
struct VirtualHost {
    tls_only: TlsOnly,
    index: Index,
    routes: Vec<Arc<Route>>,
}

/// A compiled route with everything inherited from its virtual host and table.
#[derive(Debug)]
pub(crate) struct Route {
    /// For logs.
    pub(crate) name: Arc<str>,
    criteria: Criteria,
    rewrite: Option<Rewrite>,
    /// What is done.
    pub(crate) action: Action,
    /// Span operation.
    pub(crate) decorator: Option<HeaderValue>,
    /// `x-envoy-attempt-count` goes upstream.
    pub(crate) include_attempt_count: bool,
    /// It goes to the client.
    pub(super) answers_attempt_count: bool,
    /// Retries say whether a timeout is their cause.
    pub(super) tells_timeout_retry: bool,
    /// Header changes of route, virtual host and table, in the order in which they are made.
    pub(super) changes: Vec<Arc<HeaderChanges>>,
    /// What filters do for it.
    pub(super) settings: Settings,
    /// What its requests are to rate limits; mostly nothing.
    pub(super) rate_limits: Option<Box<RateLimits>>,
    /// The retry policy of the route, else of its virtual host.
    pub(crate) retry: Option<Retries>,
    /// An attempt that takes too long goes on beside the next one.
    pub(super) hedges: bool,
    /// Bytes of a request's body that are kept to send it again; `None`: as the listener says.
    pub(super) buffer_limit_bytes: Option<usize>,
}

/// How a route changes the path; the query stays.
#[derive(Debug)]
enum Rewrite {
    /// In place of what the route matched.
    Prefix(String),
    /// In place of every match.
    Regex(TextRegex, String),
    /// In place of all of it, unless it comes out empty.
    Format(LineFormat),
    /// Where a redirect leads to; the request's own path stays.
    Elsewhere(LineFormat),
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
        /// What it is made of; `None`: it goes as it is.
        format: Option<Box<BodyFormat>>,
    },
}

/// `rate_limits` of a route and its virtual host.
#[derive(Debug)]
pub(super) struct RateLimits {
    pub(super) own: RouteLimits,
    pub(super) host: Arc<RouteLimits>,
    /// The virtual host's count in any case.
    pub(super) includes_host: bool,
}

/// What a route inherits.
struct Inherited<'a> {
    host: &'a model::VirtualHost,
    table: &'a RouteTableConfig,
    host_changes: Arc<HeaderChanges>,
    table_changes: Arc<HeaderChanges>,
    host_level: Level,
    table_level: &'a Level,
    host_limits: Arc<RouteLimits>,
    /// For routes that have none of their own.
    mirrors: Arc<[Mirror]>,
    clusters: &'a Arc<ClusterTable>,
    registry: &'a Registry,
}

impl RouteTable {
    /// Compiles a table; cluster names become cells of `clusters`.
    ///
    /// # Errors
    /// A regular expression does not compile (the model refuses such before).
    pub(crate) fn new(
        config: &RouteTableConfig,
        clusters: &Arc<ClusterTable>,
        registry: &Registry,
    ) -> Result<Self, regex::Error> {
        let table_changes = Arc::new(HeaderChanges::new(&config.headers));
        let table_mirrors: Arc<[Mirror]> = config
            .mirrors
            .iter()
            .map(|mirror| Mirror::new(mirror, clusters))
            .collect::<Result<_, _>>()?;
        let table_level = Level::new(&config.filter_settings, None, registry)?;
        let mut table = Self {
            domains: Hosts::new(config.ignore_port_in_host_matching),
            host_header: Some(config.vhost_header.clone()).filter(|name| !name.is_empty()),
            ignore_path_parameters: config.ignore_path_parameters,
            internal_only: config
                .internal_only_headers
                .iter()
                .filter_map(|name| HeaderName::try_from(name.as_str()).ok())
                .collect(),
            ..Self::default()
        };
        for (index, host) in config.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                table.domains.add(domain, index);
            }
            let inherited = Inherited {
                host,
                table: config,
                host_changes: Arc::new(HeaderChanges::new(&host.headers)),
                table_changes: table_changes.clone(),
                host_level: Level::new(&host.filter_settings, host.cors.as_ref(), registry)?,
                table_level: &table_level,
                host_limits: Arc::new(RouteLimits::new(&host.rate_limits)?),
                mirrors: match host.mirrors.as_slice() {
                    [] => table_mirrors.clone(),
                    own => {
                        let own = own.iter().map(|mirror| Mirror::new(mirror, clusters));
                        own.collect::<Result<_, _>>()?
                    }
                },
                clusters,
                registry,
            };
            let routes = host
                .routes
                .iter()
                .map(|route| Route::new(route, &inherited).map(Arc::new));
            let routes = routes.collect::<Result<Vec<_>, _>>()?;
            table.hosts.push(VirtualHost {
                tls_only: TlsOnly::new(host.tls_requirement)?,
                index: Index::new(routes.iter().map(|route| route.criteria.key())),
                routes,
            });
        }
        Ok(table)
    }

    /// Takes out what only a client inside may say; who that is has been marked before.
    pub(super) fn remove_internal_headers(&self, headers: &mut HeaderMap) {
        if self.internal_only.is_empty() || headers.contains_key(INTERNAL) {
            return;
        }
        for name in &self.internal_only {
            headers.remove(name);
        }
    }

    /// The route of a request; `None`: not found.
    pub(crate) fn route(&self, asked: &Asked<'_>) -> Option<&Arc<Route>> {
        let head = asked.head;
        let host = match &self.host_header {
            None => head.authority.as_bytes(),
            Some(name) => head.header(name)?,
        };
        let host = self.hosts.get(self.domains.find(host)?)?;
        if let Some(route) = host.tls_only.redirect(head) {
            return Some(route);
        }
        let (path, query) = (head.path.path(), head.path.query());
        let path = match self.ignore_path_parameters {
            true => without_parameters(path),
            false => Cow::Borrowed(path),
        };
        let mut candidates = host.index.candidates(&path);
        candidates.find_map(|number| {
            let route = host.routes.get(number)?;
            route
                .criteria
                .match_request(asked, &path, query.unwrap_or_default())
                .then_some(route)
        })
    }
}

/// `/a;x/b;y` is `/a/b`. Source: route.proto `ignore_path_parameters_in_path_matching`, RFC 3986 §3.3.
fn without_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(';') {
        return Cow::Borrowed(path);
    }
    let segments = path
        .split('/')
        .map(|segment| segment.split(';').next().unwrap_or_default());
    Cow::Owned(segments.collect::<Vec<_>>().join("/"))
}

impl Route {
    fn new(config: &model::Route, inherited: &Inherited<'_>) -> Result<Self, regex::Error> {
        let forward = match &config.action {
            model::RouteAction::Forward(forward) => Some(&**forward),
            model::RouteAction::Redirect(_) | model::RouteAction::DirectResponse { .. } => None,
        };
        let cors = forward.and_then(|forward| forward.cors.as_ref());
        let level = Level::new(&config.filter_settings, cors, inherited.registry)?;
        let levels = [&level, &inherited.host_level, inherited.table_level];
        let host = inherited.host;
        let (action, retry) = match &config.action {
            model::RouteAction::Forward(forward) => (
                Action::Forward(Box::new(Forward::new(forward, &levels, inherited)?)),
                Retries::new(forward.retry_policy.as_ref().or(host.retry_policy.as_ref()))?,
            ),
            model::RouteAction::Redirect(redirect) => (Action::Redirect(redirect.clone()), None),
            model::RouteAction::DirectResponse { status, body, format } => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::OK);
                (
                    Action::Direct {
                        status,
                        body: body.clone().into(),
                        format: format.as_deref().map(|format| Box::new(BodyFormat::new(format))),
                    },
                    None,
                )
            }
        };
        Ok(Self {
            name: config.name.as_str().into(),
            criteria: Criteria::new(&config.matcher)?,
            rewrite: Rewrite::new(&config.action)?,
            action,
            decorator: config
                .decorator_operation
                .as_deref()
                .and_then(|text| HeaderValue::from_str(text).ok()),
            include_attempt_count: host.include_request_attempt_count,
            answers_attempt_count: host.include_attempt_count_in_response,
            tells_timeout_retry: host.include_is_timeout_retry_header,
            changes: inherited.changes(HeaderChanges::new(&config.headers)),
            settings: Settings::merge(&levels),
            rate_limits: inherited.rate_limits(forward)?,
            retry,
            hedges: forward
                .and_then(|forward| forward.hedge_policy)
                .or(host.hedge_policy)
                .is_some_and(|policy| policy.on_per_try_timeout),
            buffer_limit_bytes: config
                .buffer_limits
                .within(host.buffer_limits)
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        })
    }

    /// The path that a redirect leads to, if it is made of the request; it may have a query.
    pub(super) fn redirect_path(&self, head: &RequestHead, info: &StreamInfo) -> Option<String> {
        let Some(Rewrite::Elsewhere(format)) = &self.rewrite else {
            return None;
        };
        let path = formatted(format, head, info, LineFormat::write_value);
        (!path.is_empty()).then_some(path)
    }

    /// The path after the route's rewrite, if it has one; the query stays.
    ///
    /// # Errors
    /// The rewrite makes something of it that no request may ask for.
    pub(crate) fn rewritten_path(
        &self,
        head: &RequestHead,
        info: &StreamInfo,
    ) -> Result<Option<PathAndQuery>, InvalidPath> {
        let whole = head.path.as_str();
        let path = match &self.rewrite {
            None | Some(Rewrite::Elsewhere(_)) => return Ok(None),
            Some(_) if head.method == Method::CONNECT => return Ok(None),
            Some(Rewrite::Prefix(replacement)) => {
                let matched = self.criteria.matched_bytes(head.path.path());
                format!("{replacement}{}", whole.get(matched..).unwrap_or_default())
            }
            Some(Rewrite::Regex(regex, substitution)) => {
                let path = head.path.path();
                let query = whole.get(path.len()..).unwrap_or_default();
                format!("{}{query}", regex.replace_all(path, substitution.as_str()))
            }
            Some(Rewrite::Format(format)) => {
                let made = formatted(format, head, info, LineFormat::write_value);
                if made.is_empty() {
                    return Ok(None);
                }
                let query = whole.get(head.path.path().len()..).unwrap_or_default();
                format!("{made}{query}")
            }
        };
        // A request line needs a path that begins with a slash; Envoy would send whatever comes out.
        match path.parse() {
            Ok(path) if whole_begins_with_slash(&path) => Ok(Some(path)),
            _ => Err(InvalidPath),
        }
    }
}

/// What a format string makes of a request.
fn formatted(
    format: &LineFormat,
    head: &RequestHead,
    info: &StreamInfo,
    write: fn(&LineFormat, &Entry<'_>, &mut Vec<u8>),
) -> String {
    let entry = Entry {
        request: Some(view(head)),
        ..Entry::of(info)
    };
    let mut made = Vec::new();
    write(format, &entry, &mut made);
    String::from_utf8_lossy(&made).into_owned()
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
                (None, None) => Ok(forward
                    .path_format
                    .as_deref()
                    .map(LineFormat::new)
                    .map(Self::Format)),
            },
            model::RouteAction::Redirect(redirect) => match &redirect.path {
                Some(model::PathRewrite::Prefix(prefix)) => Ok(Some(Self::Prefix(prefix.clone()))),
                Some(model::PathRewrite::Regex(rewrite)) => regex(rewrite),
                Some(model::PathRewrite::Format(format)) => {
                    Ok(Some(Self::Elsewhere(LineFormat::new(format))))
                }
                Some(model::PathRewrite::Whole(_)) | None => Ok(None),
            },
            model::RouteAction::DirectResponse { .. } => Ok(None),
        }
    }
}

impl Inherited<'_> {
    /// Those of a route with those of what it is in. The last one made wins where two set one header. Source: Envoy
    /// `RouteEntryImplBase::getRequestHeaderParsers`.
    fn changes(&self, own: HeaderChanges) -> Vec<Arc<HeaderChanges>> {
        let mut all = vec![
            Arc::new(own),
            self.host_changes.clone(),
            self.table_changes.clone(),
        ];
        if self.table.most_specific_headers_win {
            all.reverse();
        }
        all.retain(|changes| !changes.is_empty());
        all
    }

    fn rate_limits(&self, route: Option<&model::Forward>) -> Result<Option<Box<RateLimits>>, regex::Error> {
        let Some(route) = route else { return Ok(None) };
        let own = RouteLimits::new(&route.rate_limits)?;
        if own.is_empty() && self.host_limits.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::new(RateLimits {
            own,
            host: self.host_limits.clone(),
            includes_host: route.includes_host_limits,
        })))
    }
}

#[cfg(test)]
#[path = "route_table_tests.rs"]
mod tests;
