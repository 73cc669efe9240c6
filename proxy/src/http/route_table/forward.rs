//! Where a route sends requests: clusters, hosts, hashes and copies.
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrigger_model::metadata::Struct;
use outrigger_model::route as model;
use outrigger_model::route::{ClusterSpec, ShareChoice};
use regex::Regex as TextRegex;

use super::{Inherited, formatted};
use crate::codec::RequestHead;
use crate::http::filter::{Level, Settings};
use crate::http::hash_policy::HashPolicies;
use crate::http::header_changes::HeaderChanges;
use crate::http::router::internal_redirect::Redirects;
use crate::http::router::mirror::Mirror;
use crate::telemetry::format::LineFormat;
use crate::telemetry::stream_info::StreamInfo;
use crate::upstream::cluster::Cluster;
use crate::upstream::cluster_table::{ClusterCell, ClusterTable};
use crate::upstream::lb::Labels;
use crate::upstream::weighted::Weighted;

const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Its clusters; one when there is no choice.
    pub(crate) targets: Weighted<Target>,
    choice: ShareChoice,
    host: Option<HostRewrite>,
    /// What a hashing load balancer goes by.
    pub(in crate::http) hash: HashPolicies,
    /// Who gets copies.
    pub(in crate::http) mirrors: Arc<[Mirror]>,
    /// Redirects that are followed here.
    pub(in crate::http) redirects: Option<Box<Redirects>>,
    /// Where names of clusters lead to.
    pub(in crate::http) clusters: Arc<ClusterTable>,
    /// The rest as configured.
    pub(crate) config: model::Forward,
}

/// One possible cluster of a route.
#[derive(Debug)]
pub(crate) struct Target {
    /// The cluster.
    pub(crate) cluster: ClusterRef,
    /// Header changes of this share.
    pub(in crate::http) changes: Option<HeaderChanges>,
    /// What filters do for it; `None`: the route's.
    pub(in crate::http) settings: Option<Settings>,
    /// The authority that this share is asked for.
    pub(in crate::http) host: Option<HeaderValue>,
    /// Labels that its hosts have to have.
    pub(in crate::http) labels: Option<Labels>,
}

/// How a cluster is named.
#[derive(Debug)]
pub(crate) enum ClusterRef {
    /// By the configuration.
    Known(Arc<ClusterCell>),
    /// By this header. The lookup takes the table's lock: only such routes pay for it.
    Header(String, Arc<ClusterTable>),
}

impl ClusterRef {
    pub(in crate::http) fn new(name: &str, header: &str, clusters: &Arc<ClusterTable>) -> Self {
        match header {
            "" => Self::Known(clusters.cell(name)),
            header => Self::Header(header.to_owned(), clusters.clone()),
        }
    }

    /// The name, and the cluster that has it now.
    pub(crate) fn find(&self, head: &RequestHead) -> Option<(Arc<str>, Option<Arc<Cluster>>)> {
        match self {
            Self::Known(cell) => Some((cell.name.clone(), cell.load())),
            Self::Header(header, clusters) => {
                let name = std::str::from_utf8(head.header(header)?).ok()?;
                let cell = clusters.find(name);
                Some((name.into(), cell.and_then(|cell| cell.load())))
            }
        }
    }
}

/// What becomes of `:authority`.
#[derive(Debug)]
enum HostRewrite {
    Literal(HeaderValue),
    /// Known when a host is picked.
    Endpoint,
    Header(String),
    PathRegex(TextRegex, String),
    Format(LineFormat),
}

impl Forward {
    pub(super) fn new(
        config: &model::Forward,
        levels: &[&Level; 3],
        inherited: &Inherited<'_>,
    ) -> Result<Self, regex::Error> {
        let clusters = inherited.clusters;
        let (targets, choice) = match &config.cluster {
            ClusterSpec::Single(name) => {
                let cluster = ClusterRef::new(name, "", clusters);
                (plain(cluster, &config.subset_labels), ShareChoice::Random)
            }
            ClusterSpec::Header(header) => {
                let cluster = ClusterRef::new("", header, clusters);
                (plain(cluster, &config.subset_labels), ShareChoice::Random)
            }
            ClusterSpec::Weighted { shares, by } => {
                let targets = shares
                    .iter()
                    .map(|share| Ok((share.weight, Target::new(share, levels, inherited)?)));
                (
                    targets.collect::<Result<Weighted<_>, regex::Error>>()?,
                    by.clone(),
                )
            }
        };
        let own = config.mirrors.iter().map(|mirror| Mirror::new(mirror, clusters));
        let own: Arc<[Mirror]> = own.collect::<Result<_, _>>()?;
        Ok(Self {
            targets,
            choice,
            host: config.host_rewrite.as_ref().map(HostRewrite::new).transpose()?,
            hash: HashPolicies::new(&config.hash_policies)?,
            mirrors: match own.is_empty() {
                true => inherited.mirrors.clone(),
                false => own,
            },
            redirects: config
                .internal_redirects
                .as_ref()
                .map(|config| Box::new(Redirects::new(config))),
            clusters: clusters.clone(),
            config: config.clone(),
        })
    }

    /// Which share a request gets; `hash` is asked only if shares go by it.
    pub(in crate::http) fn draw(
        &self,
        head: &RequestHead,
        random: &mut fastrand::Rng,
        hash: impl FnOnce() -> Option<u64>,
    ) -> Option<usize> {
        let number = match &self.choice {
            ShareChoice::Random => None,
            ShareChoice::Header(name) => head
                .header(name)
                .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok()),
            ShareChoice::Hash => hash(),
        };
        match number {
            Some(number) => self.targets.at(number),
            None => self.targets.draw(random),
        }
    }

    /// Rewrites the authority, as far as that is known before a host is picked.
    pub(in crate::http) fn rewrite_host(&self, head: &mut RequestHead, tells: bool, info: &StreamInfo) {
        let host = match &self.host {
            None | Some(HostRewrite::Endpoint) => return,
            Some(HostRewrite::Literal(host)) => Some(host.clone()),
            Some(HostRewrite::Header(name)) => head
                .header(name)
                .filter(|value| !value.is_empty())
                .and_then(|value| HeaderValue::from_bytes(value).ok()),
            Some(HostRewrite::PathRegex(regex, substitution)) => {
                let host = regex.replace_all(head.path.path(), substitution.as_str());
                HeaderValue::from_str(&host).ok()
            }
            Some(HostRewrite::Format(format)) => {
                // As Envoy, what is not there is a `-` in it.
                let host = formatted(format, head, info, LineFormat::write);
                HeaderValue::from_str(&host).ok().filter(|host| !host.is_empty())
            }
        };
        if let Some(host) = host {
            self.set_host(head, host, tells);
        }
    }

    /// Rewrites the authority to the name of the host that was picked, where the route says so; true: it did.
    pub(in crate::http) fn rewrite_host_to(
        &self,
        hostname: &str,
        head: &mut RequestHead,
        tells: bool,
    ) -> bool {
        let is_wanted = matches!(self.host, Some(HostRewrite::Endpoint)) && !hostname.is_empty();
        let host = is_wanted.then(|| HeaderValue::from_str(hostname).ok()).flatten();
        let rewrites = host.is_some();
        if let Some(host) = host {
            self.set_host(head, host, tells);
        }
        rewrites
    }

    /// Source: Envoy `Http::Utility::updateAuthority`.
    fn set_host(&self, head: &mut RequestHead, host: HeaderValue, tells: bool) {
        let old = std::mem::replace(&mut head.authority, host);
        if self.config.appends_forwarded_host {
            append_forwarded_host(&mut head.headers, &old);
        }
        if tells && !old.is_empty() {
            head.headers.entry(ORIGINAL_HOST).or_insert(old);
        }
    }
}

fn append_forwarded_host(headers: &mut HeaderMap, host: &HeaderValue) {
    let all = match headers.get(FORWARDED_HOST) {
        None => Ok(host.clone()),
        Some(before) => HeaderValue::from_bytes(&[before.as_bytes(), b",", host.as_bytes()].concat()),
    };
    if let Ok(all) = all {
        headers.insert(FORWARDED_HOST, all);
    }
}

fn plain(cluster: ClusterRef, labels: &Struct) -> Weighted<Target> {
    [(1, Target::plain(cluster, labels))].into_iter().collect()
}

impl Target {
    /// All of a route.
    fn plain(cluster: ClusterRef, labels: &Struct) -> Self {
        Self {
            cluster,
            changes: None,
            settings: None,
            host: None,
            labels: Labels::new(labels),
        }
    }

    fn new(
        share: &model::WeightedCluster,
        [route, host, table]: &[&Level; 3],
        inherited: &Inherited<'_>,
    ) -> Result<Self, regex::Error> {
        let changes = HeaderChanges::new(&share.headers);
        let settings = match share.filter_settings.as_slice() {
            [] => None,
            own => {
                let own = Level::new(own, None, inherited.registry)?;
                Some(Settings::merge(&[&own, route, host, table]))
            }
        };
        let cluster = ClusterRef::new(&share.name, &share.cluster_header, inherited.clusters);
        let host = share.host_rewrite.as_deref();
        Ok(Self {
            changes: Some(changes).filter(|changes| !changes.is_empty()),
            settings,
            host: host.and_then(|host| HeaderValue::from_str(host).ok()),
            ..Self::plain(cluster, &share.subset_labels)
        })
    }
}

impl HostRewrite {
    fn new(config: &model::HostRewrite) -> Result<Self, regex::Error> {
        Ok(match config {
            model::HostRewrite::Literal(host) => {
                Self::Literal(HeaderValue::from_str(host).unwrap_or_else(|_| HeaderValue::from_static("")))
            }
            model::HostRewrite::Endpoint => Self::Endpoint,
            model::HostRewrite::Header(name) => Self::Header(name.clone()),
            model::HostRewrite::Format(format) => Self::Format(LineFormat::new(format)),
            model::HostRewrite::PathRegex(rewrite) => {
                Self::PathRegex(TextRegex::new(&rewrite.pattern)?, rewrite.substitution.clone())
            }
        })
    }
}
