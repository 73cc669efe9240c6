//! Splits a stat name into a shorter name and labels, for Prometheus.
//!
//! A rule finds text in the *full* name; what its first group matched is cut out, and the second group (else the first) is
//! the label's value. All rules see the full name; a label is set once, by its first rule.
//! Order of labels as Envoy: rules without a literal first word, then those of the name's first word (`^http\.…`).
//!
//! `fancy-regex`, because Istio's rules use look-ahead (`^listener(?=\.)`), which `regex` cannot run; it stands on
//! the same `regex-automata` and adds two small crates. Rules run when a stat is first shown, once, never on the data path.
//! Source: envoy/config/metrics/v3/stats.proto `TagSpecifier`; names of the default labels: Envoy docs, "tag extraction".
use std::sync::Arc;

use outrigger_model::bootstrap::{StatsTag, StatsTagValue};
use outrigger_model::matcher::ascii_classes;

use super::tagged::Tags;

/// A name without its labels, and the labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaggedName {
    pub(super) name: Arc<str>,
    pub(super) tags: Tags,
}

/// A rule that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TagError {
    /// The expression does not compile.
    #[error("stats tag {name}: regex {regex:?}: {source}; correct stats_config.stats_tags")]
    Regex {
        /// Label.
        name: String,
        /// As configured.
        regex: String,
        /// Why.
        source: Box<fancy_regex::Error>,
    },
    /// There is no group, so nothing says what the value is.
    #[error("stats tag {name}: regex {regex:?} has no group; put the text to cut out in ()")]
    NoGroup {
        /// Label.
        name: String,
        /// As configured.
        regex: String,
    },
}

/// The rules, in the order in which they are tried.
#[derive(Default)]
pub(crate) struct TagRules {
    rules: Vec<Rule>,
}

struct Rule {
    tag: Arc<str>,
    /// The name's first word must be this.
    first_word: Option<String>,
    find: Find,
}

enum Find {
    /// Boxed: a compiled expression is large beside the others.
    Regex(Box<fancy_regex::Regex>),
    /// Words of a name: see [`match_words`].
    Words(&'static str),
    Fixed(String),
}

/// Byte range to cut out and byte range of the value.
type Found = (std::ops::Range<usize>, std::ops::Range<usize>);

impl TagRules {
    /// Rules of the bootstrap; `default_tags` is Envoy's `use_all_default_tags` (its default: true).
    pub(crate) fn new(tags: &[StatsTag], default_tags: bool) -> Result<TagRules, TagError> {
        let mut rules = Vec::new();
        if default_tags {
            for (tag, regex) in DEFAULT_REGEXES {
                rules.push(Rule::regex(tag, regex)?);
            }
            rules.extend(DEFAULT_WORDS.map(|(tag, words)| Rule::words(tag, words)));
        }
        for tag in tags {
            rules.push(match &tag.value {
                StatsTagValue::Regex(regex) => Rule::regex(&tag.name, regex)?,
                StatsTagValue::Fixed(value) => Rule {
                    tag: tag.name.as_str().into(),
                    first_word: None,
                    find: Find::Fixed(value.clone()),
                },
            });
        }
        rules.sort_by_key(|rule| rule.first_word.is_some());
        Ok(TagRules { rules })
    }

    /// Splits one full name.
    pub(super) fn split(&self, full: &str) -> TaggedName {
        let first_word = full.split('.').next().unwrap_or(full);
        let mut tags: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        let mut cuts = Vec::new();
        for rule in self
            .rules
            .iter()
            .filter(|rule| rule.first_word.as_deref().is_none_or(|word| word == first_word))
        {
            if tags.iter().any(|(tag, _)| *tag == rule.tag) {
                continue;
            }
            if let Find::Fixed(value) = &rule.find {
                tags.push((Arc::clone(&rule.tag), value.as_str().into()));
            } else if let Some((cut, value)) = rule.find(full) {
                tags.push((Arc::clone(&rule.tag), full.get(value).unwrap_or_default().into()));
                cuts.push(cut);
            }
        }
        TaggedName {
            name: without(full, cuts).into(),
            tags: tags.into(),
        }
    }
}

impl Rule {
    fn regex(tag: &str, regex: &str) -> Result<Rule, TagError> {
        let compiled = fancy_regex::Regex::new(&ascii_classes(regex)).map_err(|source| TagError::Regex {
            name: tag.to_owned(),
            regex: regex.to_owned(),
            source: Box::new(source),
        })?;
        if compiled.captures_len() < 2 {
            return Err(TagError::NoGroup {
                name: tag.to_owned(),
                regex: regex.to_owned(),
            });
        }
        Ok(Rule {
            tag: tag.into(),
            first_word: first_word(regex),
            find: Find::Regex(Box::new(compiled)),
        })
    }

    fn words(tag: &str, words: &'static str) -> Rule {
        let first = words
            .split('.')
            .next()
            .filter(|word| !word.contains(['$', '*']))
            .map(str::to_owned);
        Rule {
            tag: tag.into(),
            first_word: first,
            find: Find::Words(words),
        }
    }

    /// A regex that gives up (too much backtracking) is no match: the name is then shown whole.
    fn find(&self, full: &str) -> Option<Found> {
        match &self.find {
            Find::Regex(regex) => {
                let groups = regex.captures(full).ok()??;
                let cut = groups.get(1)?;
                let value = groups.get(2).unwrap_or(cut);
                Some((cut.range(), value.range()))
            }
            Find::Words(pattern) => match_words(pattern, full),
            Find::Fixed(_) => None,
        }
    }
}

/// The literal word that a regex asks for first: `^listener\.` and `^listener(?=\.)`, but not `^cluster(\.`.
fn first_word(regex: &str) -> Option<String> {
    let rest = regex.strip_prefix('^')?;
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (word, rest) = rest.split_at(end);
    let ends = rest == "$" || rest.starts_with(r"\.") || rest.starts_with(r"(?=\.)");
    (ends && !word.is_empty()).then(|| word.to_owned())
}

/// Matches a name word by word: `$` is the value (cut with a dot beside it), `*` one word, `**` any words, at the end one at least.
fn match_words(pattern: &str, full: &str) -> Option<Found> {
    let mut words = pattern.split('.').peekable();
    let mut value = None;
    let mut at = 0;
    while let Some(word) = words.next() {
        if word == "**" {
            // The shortest run of words after which the rest of the pattern matches; patterns are short.
            let rest: Vec<&str> = words.collect();
            return match_rest(&rest, full, at).then_some(value).flatten();
        }
        let text = full.get(at..)?;
        let end = at + text.find('.').unwrap_or(text.len());
        match word {
            "$" => value = Some(cut_around(full, at, end)),
            "*" => {}
            literal => (full.get(at..end) == Some(literal)).then_some(())?,
        }
        let last = end == full.len();
        if last || words.peek().is_none() {
            return (last && words.peek().is_none()).then_some(value).flatten();
        }
        at = end + 1;
    }
    None
}

fn match_rest(rest: &[&str], full: &str, at: usize) -> bool {
    let Some(text) = full.get(at..).filter(|text| !text.is_empty()) else {
        return false;
    };
    let words: Vec<&str> = text.split('.').collect();
    let matches = |tail: &[&str]| {
        tail.iter()
            .zip(rest)
            .all(|(word, pattern)| *pattern == "*" || word == pattern)
    };
    rest.is_empty() || words.len() >= rest.len() && matches(&words[words.len() - rest.len()..])
}

fn cut_around(full: &str, start: usize, end: usize) -> Found {
    let cut = if end < full.len() {
        start..end + 1
    } else {
        start.saturating_sub(1)..end
    };
    (cut, start..end)
}

fn without(full: &str, mut cuts: Vec<std::ops::Range<usize>>) -> String {
    cuts.sort_by_key(|cut| cut.start);
    let mut name = String::with_capacity(full.len());
    let mut from = 0;
    for cut in cuts {
        name.push_str(full.get(from..cut.start).unwrap_or_default());
        from = from.max(cut.end);
    }
    name.push_str(full.get(from..).unwrap_or_default());
    name
}

/// Labels of Envoy whose place in the name needs more than words. `response_code_class` has one digit, as Envoy's.
const DEFAULT_REGEXES: [(&str, &str); 11] = [
    ("envoy.response_code", r"_rq(_([0-9]{3}))$"),
    ("envoy.response_code_class", r"_rq_(([0-9]))xx$"),
    ("envoy.ssl_cipher", r"^listener\..*?\.ssl\.ciphers(\.([\w-]+))$"),
    (
        "envoy.ssl_curve",
        r"^(?:cluster|listener)\..*?\.ssl\.curves(\.([\w-]+))$",
    ),
    (
        "envoy.ssl_sigalg",
        r"^(?:cluster|listener)\..*?\.ssl\.sigalgs(\.([\w-]+))$",
    ),
    (
        "envoy.ssl_version",
        r"^(?:cluster|listener)\..*?\.ssl\.versions(\.(TLSv[0-9]\.[0-9]))$",
    ),
    ("cipher_suite", r"^cluster\.[^.]+\.ssl\.ciphers(\.([\w-]+))$"),
    (
        "envoy.http_conn_manager_prefix",
        r"^listener\..*?\.http\.(([^.]+)\.)",
    ),
    (
        "envoy.worker_id",
        r"^(?:listener\.(?:[0-9.]+_[0-9]+|\[[0-9a-fA-F_]+\]_[0-9]+|[^.]+)|server|listener_manager|thread_local_cluster_manager)\.worker_(([0-9]+)\.)",
    ),
    // The admin listener has no address.
    (
        "envoy.listener_address",
        r"^listener\.((?!admin\.)([0-9]+(?:\.[0-9]+){3}_[0-9]+|\[[0-9a-fA-F_]+\]_[0-9]+|[^.]+)\.)",
    ),
    ("envoy.rds_route_config", r"^http\.[^.]+\.rds\.(([\w.-]+)\.)\w+$"),
];

/// Labels of Envoy that stand between dots.
const DEFAULT_WORDS: [(&str, &str); 26] = [
    ("envoy.mongo_callsite", "mongo.*.collection.*.callsite.$.query.**"),
    ("envoy.mongo_collection", "mongo.*.collection.$.**.query.*"),
    ("envoy.mongo_cmd", "mongo.*.cmd.$.**"),
    ("envoy.grpc_bridge_method", "cluster.*.grpc.*.$.**"),
    ("envoy.http_user_agent", "http.*.user_agent.$.**"),
    ("envoy.virtual_cluster", "vhost.*.vcluster.$.**"),
    ("envoy.fault_downstream_cluster", "http.*.fault.$.**"),
    ("envoy.grpc_bridge_service", "cluster.*.grpc.$.**"),
    ("envoy.tcp_prefix", "tcp.$.**"),
    ("envoy.udp_prefix", "udp.$.**"),
    ("envoy.clientssl_prefix", "auth.clientssl.$.**"),
    ("envoy.ratelimit_prefix", "ratelimit.$.**"),
    ("envoy.cluster_name", "cluster.$.**"),
    ("envoy.ext_authz_prefix", "cluster.*.ext_authz.$.**"),
    ("envoy.ext_authz_prefix", "http.*.ext_authz.$.**"),
    ("envoy.http_conn_manager_prefix", "http.$.**"),
    ("envoy.virtual_host", "vhost.$.**"),
    ("envoy.mongo_prefix", "mongo.$.**"),
    ("envoy.route", "vhost.*.route.$.**"),
    ("envoy.thrift_prefix", "thrift.$.**"),
    ("envoy.redis_prefix", "redis.$.**"),
    ("envoy.local_http_ratelimit_prefix", "$.http_local_rate_limit.**"),
    ("envoy.local_network_ratelimit_prefix", "local_rate_limit.$.**"),
    (
        "envoy.local_listener_ratelimit_prefix",
        "listener_local_ratelimit.$.**",
    ),
    ("envoy.dns_filter_prefix", "dns_filter.$.**"),
    ("envoy.connection_limit_prefix", "connection_limit.$.**"),
];

/// Turns `envoy.cluster_name` into `envoy_cluster_name`; a leading digit gets `_` before it.
pub(super) fn sanitise(name: &str) -> String {
    let mut clean = String::with_capacity(name.len() + 1);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        clean.push('_');
    }
    clean.extend(
        name.chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }),
    );
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(name: &str, regex: &str) -> StatsTag {
        StatsTag {
            name: name.to_owned(),
            value: StatsTagValue::Regex(regex.to_owned()),
        }
    }

    /// Rules as Istio's bootstrap has them.
    fn istio() -> Vec<StatsTag> {
        let address = r"(?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*)";
        let prefix = r"(?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*)";
        vec![
            regex("cluster_name", r"^cluster(\.(.+);)"),
            regex("http_conn_manager_prefix", &format!(r"^http\.((({prefix}));\.)")),
            regex("thread_name", r"^server(\.(.+))\.watchdog"),
            regex("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
            regex("response_code", r"_rq(_(\d{3}))$"),
            regex("response_code_class", r"_rq(_(\dxx))$"),
            regex(
                "http_conn_manager_listener_prefix",
                &format!(r"^listener(?=\.).*?\.http\.((({address}))\.)"),
            ),
            regex("listener_address", &format!(r"^listener\.((({address}))\.)")),
        ]
    }

    /// `expected` is how a Prometheus line begins.
    #[track_caller]
    fn check(rules: &TagRules, full: &str, expected: &str) {
        let split = rules.split(full);
        let tags: Vec<String> = split
            .tags
            .iter()
            .map(|(tag, value)| format!("{tag}={value}"))
            .collect();
        assert_eq!(format!("{} {}", split.name, tags.join(",")).trim_end(), expected);
    }

    /// Expected values are those of Envoy 1.40 with the same rules.
    #[test]
    fn istio_rules_split_names_with_a_semicolon() {
        let mut tags = istio();
        tags.push(StatsTag {
            name: "mesh".to_owned(),
            value: StatsTagValue::Fixed("m1".to_owned()),
        });
        let rules = TagRules::new(&tags, false).unwrap();
        let cluster = "outbound|9999|v1|bill-service.default.svc.cluster.local";
        check(
            &rules,
            &format!("cluster.{cluster};.external.upstream_rq_200"),
            &format!("cluster.external.upstream_rq cluster_name={cluster},response_code=200,mesh=m1"),
        );
        check(
            &rules,
            "http.outbound_0.0.0.0_80;.downstream_rq_2xx",
            "http.downstream_rq response_code_class=2xx,mesh=m1,http_conn_manager_prefix=outbound_0.0.0.0_80",
        );
        check(
            &rules,
            "listener.127.0.0.1_19740.worker_0.downstream_cx_total",
            "listener.worker_0.downstream_cx_total mesh=m1,listener_address=127.0.0.1_19740",
        );
        check(
            &rules,
            "listener.0.0.0.0_80.http.0.0.0.0_80.downstream_rq_2xx",
            "listener.http.downstream_rq response_code_class=2xx,mesh=m1,\
             http_conn_manager_listener_prefix=0.0.0.0_80,listener_address=0.0.0.0_80",
        );
        check(
            &rules,
            "cluster.dead.upstream_cx_total",
            "cluster.dead.upstream_cx_total mesh=m1",
        );
        check(
            &rules,
            "tcp.x.y.downstream_cx_total",
            "tcp.downstream_cx_total mesh=m1,tcp_prefix=x.y",
        );
    }

    /// Expected values are those of Envoy 1.40 without a `stats_config`.
    #[test]
    fn default_rules_split_as_envoy() {
        let rules = TagRules::new(&[], true).unwrap();
        check(
            &rules,
            "cluster.outbound|9999|v1|bill-service.default.svc.cluster.local;.membership_total",
            "cluster.default.svc.cluster.local;.membership_total \
             envoy.cluster_name=outbound|9999|v1|bill-service",
        );
        check(
            &rules,
            "listener.127.0.0.1_80.http.outbound_0.0.0.0_80;.downstream_rq_5xx",
            "listener.http.0.0.0_80;.downstream_rq_xx envoy.response_code_class=5,\
             envoy.http_conn_manager_prefix=outbound_0,envoy.listener_address=127.0.0.1_80",
        );
        check(
            &rules,
            "listener.127.0.0.1_80.worker_0.downstream_cx_total",
            "listener.worker_downstream_cx_total envoy.worker_id=0,envoy.listener_address=127.0.0.1_80",
        );
        check(
            &rules,
            "listener.admin.downstream_cx_total",
            "listener.admin.downstream_cx_total",
        );
        check(&rules, "tcp.a|b;.cx_total", "tcp.cx_total envoy.tcp_prefix=a|b;");
        check(
            &rules,
            "vhost.a.vcluster.b.upstream_rq_200",
            "vhost.vcluster.upstream_rq \
             envoy.response_code=200,envoy.virtual_cluster=b,envoy.virtual_host=a",
        );
        check(&rules, "tcp.x", "tcp.x");
    }

    #[test]
    fn a_bad_rule_is_refused_with_its_name() {
        let error = |text| {
            TagRules::new(&[regex("x", text)], false)
                .map(drop)
                .unwrap_err()
                .to_string()
        };
        assert!(error("(").starts_with("stats tag x: regex \"(\": "));
        assert!(error("abc").contains("has no group"));
    }
}
