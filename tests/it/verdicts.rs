//! Every field of the model has a reader in the proxy: what is called supported may not be parsed and then forgotten.
//!
//! By names in the source. A name that several types have is no evidence, so the readers of those fields are listed, each with words
//! that its code must have.

use std::collections::{BTreeMap, BTreeSet};

use super::repo::{SourceFile, root, texts};

/// Fields that the model itself uses up, and how.
const INSIDE_THE_MODEL: &[(&str, &str)] = &[
    (
        "max_direct_response_body_bytes",
        "longer bodies of direct responses are refused when the table is converted",
    ),
    ("type_names", "DiscoveredFilter::check_type reads them"),
];

/// The readers of fields whose name several types have: file below `proxy`, then words of the line, without spaces.
const SHARED: &[(&str, &str, &str)] = &[
    (
        "Comparison.value",
        "src/telemetry/access_log/filter.rs",
        "comparison.value",
    ),
    ("FileLog.path", "src/telemetry/access_log.rs", "&file.path"),
    (
        "Forward.host_rewrite",
        "src/http/route_table/forward.rs",
        "config.host_rewrite",
    ),
    ("Redirect.path", "src/http/redirect.rs", "&config.path"),
    (
        "RegexRewrite.pattern",
        "src/http/route_table.rs",
        "&rewrite.pattern",
    ),
    ("SanMatcher.kind", "src/tls/verify.rs", "SanMatcher{kind"),
    ("SanMatcher.name", "src/tls/verify.rs", "compile(name)"),
    ("StringMatcher.pattern", "src/http/matcher.rs", "config.pattern"),
    (
        "WeightedCluster.host_rewrite",
        "src/http/route_table/forward.rs",
        "share.host_rewrite",
    ),
    ("AdsConfig.server", "src/config/streams.rs", "&config.server"),
    ("Alpn.http2", "src/http/filter/alpn.rs", "&config.http2"),
    (
        "Bootstrap.clusters",
        "src/config/control.rs",
        "bootstrap.clusters",
    ),
    ("Cluster.metadata", "src/http/filter/alpn.rs", ".metadata"),
    ("Cluster.name", "src/upstream/cluster.rs", "config.name"),
    ("ConfigSource.server", "src/config/listeners.rs", "source.server"),
    ("DownstreamTls.common", "src/tls/server.rs", "&config.common"),
    (
        "Endpoint.address",
        "src/upstream/endpoint/host_set.rs",
        "endpoint.address",
    ),
    (
        "Endpoint.metadata",
        "src/upstream/endpoint/host_set.rs",
        "endpoint.metadata",
    ),
    ("FilterChain.filters", "src/config/build.rs", "config.filters"),
    (
        "FilterChain.matcher",
        "src/listener/connection.rs",
        "chain.matcher",
    ),
    ("FilterChain.name", "src/config/build.rs", "name:config.name"),
    (
        "Forward.cluster",
        "src/http/route_table/forward.rs",
        "&config.cluster",
    ),
    (
        "Forward.retry_policy",
        "src/http/route_table.rs",
        "forward.retry_policy",
    ),
    (
        "Forward.idle_timeout",
        "src/http/stream/prepare.rs",
        "forward.config.idle_timeout",
    ),
    (
        "HeaderAddition.action",
        "src/http/header_changes.rs",
        "config.action",
    ),
    ("HeaderAddition.name", "src/http/header_changes.rs", "config.name"),
    (
        "HeaderAddition.value",
        "src/http/header_changes.rs",
        "config.value",
    ),
    ("HeaderMatcher.kind", "src/http/matcher.rs", "&config.kind"),
    ("HeaderMatcher.name", "src/http/matcher.rs", "config.name"),
    (
        "HistogramBuckets.matcher",
        "src/stats/inclusion.rs",
        "one.matcher",
    ),
    (
        "HttpConnectionManager.access_log",
        "src/config/build.rs",
        "&config.access_log,&self",
    ),
    ("HttpConnectionManager.filters", "src/http/manager.rs", ".filters"),
    (
        "HttpConnectionManager.http2",
        "src/http/manager.rs",
        "HttpConnectionManager{http2",
    ),
    (
        "HttpConnectionManager.idle_timeout",
        "src/http/manager.rs",
        "config.idle_timeout",
    ),
    (
        "HttpConnectionManager.routes",
        "src/config/build.rs",
        "&config.routes",
    ),
    (
        "HttpConnectionManager.stat_prefix",
        "src/http/manager.rs",
        "&config.stat_prefix",
    ),
    (
        "HttpProtocol.http2",
        "src/upstream/pool/h2.rs",
        "config.http.http2",
    ),
    (
        "HttpProtocol.idle_timeout",
        "src/upstream/pool/h1.rs",
        "config.http.idle_timeout",
    ),
    (
        "Listener.access_log",
        "src/config/build.rs",
        "&config.access_log,&shared",
    ),
    ("Listener.address", "src/config/build.rs", "&config.address"),
    ("Listener.name", "src/config/listeners.rs", "config.name"),
    ("ListenerFilter.kind", "src/listener/inspect.rs", "filter.kind"),
    (
        "LocalityEndpoints.locality",
        "src/upstream/endpoint/host_set.rs",
        "group.locality",
    ),
    (
        "MetadataExchange.additional_labels",
        "src/config/build.rs",
        "exchange.additional_labels",
    ),
    ("Node.locality", "model/src/peer.rs", "node.locality"),
    ("Node.metadata", "model/src/peer.rs", "node.metadata"),
    (
        "PeerMetadata.additional_labels",
        "src/http/filter/peer_metadata.rs",
        "config.additional_labels",
    ),
    (
        "RetryOn.retriable_status_codes",
        "src/http/router/retry.rs",
        "on.retriable_status_codes",
    ),
    (
        "RetryPolicy.retriable_status_codes",
        "src/http/router/retry.rs",
        "policy.retriable_status_codes",
    ),
    ("GrpcServer.cluster", "src/config/streams.rs", "server.cluster"),
    ("GrpcServer.metadata", "src/config/streams.rs", "server.metadata"),
    ("RestServer.cluster", "src/config/streams.rs", "&rest.cluster"),
    ("Route.action", "src/http/route_table.rs", "&config.action"),
    ("Route.headers", "src/http/route_table.rs", "&config.headers"),
    ("Route.matcher", "src/http/route_table.rs", "&config.matcher"),
    ("Route.name", "src/http/route_table.rs", "name:config.name"),
    (
        "RouteMatch.headers",
        "src/http/route_table/criteria.rs",
        "config.headers",
    ),
    (
        "RouteMatch.path",
        "src/http/route_table/criteria.rs",
        "&config.path",
    ),
    (
        "RouteTableConfig.headers",
        "src/http/route_table.rs",
        "&config.headers",
    ),
    ("Secret.kind", "src/config/secrets.rs", "&secret.kind"),
    ("Secret.name", "src/config/secrets.rs", "name:secret.name"),
    ("SecretRef.name", "src/config/secrets/key.rs", "reference.name"),
    (
        "SecretRef.source",
        "src/config/secrets/key.rs",
        "reference.source",
    ),
    (
        "DiscoveredFilter.source",
        "src/config/extensions.rs",
        "&place.source",
    ),
    (
        "FilterResource.filter",
        "src/config/extensions.rs",
        "&resource.filter",
    ),
    ("StatsTag.name", "src/stats/tags.rs", "tag.name"),
    ("StatsTag.value", "src/stats/tags.rs", "tag.value"),
    ("TcpProxy.access_log", "src/config/build.rs", "&tcp.access_log"),
    (
        "TcpProxy.clusters",
        "src/network_filter/tcp_proxy.rs",
        ".clusters",
    ),
    (
        "TcpProxy.idle_timeout",
        "src/network_filter/tcp_proxy.rs",
        "config.idle_timeout",
    ),
    (
        "TcpProxy.stat_prefix",
        "src/network_filter/tcp_proxy.rs",
        "&config.stat_prefix",
    ),
    ("UpstreamTls.common", "src/tls/client.rs", "&config.common"),
    ("VirtualHost.headers", "src/http/route_table.rs", "&host.headers"),
    ("VirtualHost.name", "model/src/route/from_proto.rs", "host.name"),
    (
        "VirtualHost.retry_policy",
        "src/http/route_table.rs",
        "host.retry_policy",
    ),
    ("VirtualHost.routes", "src/http/route_table.rs", ".routes"),
    (
        "WeightedCluster.headers",
        "src/http/route_table/forward.rs",
        "share.headers",
    ),
    (
        "WeightedCluster.name",
        "src/http/route_table/forward.rs",
        "share.name",
    ),
    (
        "WeightedCluster.weight",
        "src/http/route_table/forward.rs",
        "share.weight",
    ),
    (
        "CookieMatcher.invert",
        "src/http/route_table/criteria.rs",
        "config.invert",
    ),
    ("HeaderMatcher.invert", "src/http/matcher.rs", "config.invert"),
    ("AccessLog.filter", "src/telemetry/access_log.rs", ".filter"),
    ("CorsPolicy.enabled", "src/http/filter/cors.rs", "config.enabled"),
    ("CorsPolicy.headers", "src/http/filter/cors.rs", "&config.headers"),
    (
        "Descriptor.bucket",
        "src/http/filter/local_ratelimit.rs",
        "&descriptor.bucket",
    ),
    ("Fault.headers", "src/http/filter/fault.rs", "config.headers"),
    ("FaultAbort.share", "src/http/filter/fault.rs", "config.share"),
    (
        "FaultDelay.share",
        "src/http/filter/fault.rs",
        "config.share,config.fixed",
    ),
    (
        "FaultRateLimit.share",
        "src/http/filter/fault.rs",
        "config.share,config.kib_per_second",
    ),
    (
        "FilterSettings.filter",
        "src/http/filter/settings.rs",
        "config.filter",
    ),
    ("Forward.cors", "src/http/route_table.rs", "forward.cors"),
    ("Forward.mirrors", "src/http/route_table/forward.rs", ".mirrors"),
    (
        "Forward.rate_limits",
        "src/http/route_table.rs",
        "&route.rate_limits",
    ),
    (
        "LocalRateLimit.bucket",
        "src/http/filter/local_ratelimit.rs",
        ".bucket.as_ref()",
    ),
    (
        "LocalRateLimit.enabled",
        "src/http/filter/local_ratelimit.rs",
        "self.config.enabled",
    ),
    (
        "LocalRateLimit.rate_limits",
        "src/http/filter/local_ratelimit.rs",
        ".rate_limits.iter()",
    ),
    (
        "LocalRateLimit.stage",
        "src/http/filter/local_ratelimit.rs",
        "self.config.stage",
    ),
    (
        "LocalRateLimit.stat_prefix",
        "src/http/filter/local_ratelimit.rs",
        "config.stat_prefix",
    ),
    (
        "LocalRateLimit.status",
        "src/http/filter/local_ratelimit.rs",
        "config.status",
    ),
    (
        "MirrorPolicy.cluster",
        "src/http/router/mirror.rs",
        "&config.cluster",
    ),
    (
        "MirrorPolicy.cluster_header",
        "src/http/router/mirror.rs",
        "&config.cluster_header",
    ),
    ("MirrorPolicy.host", "src/http/router/mirror.rs", "config.host"),
    ("MirrorPolicy.share", "src/http/router/mirror.rs", "config.share"),
    ("PlacedFilter.filter", "src/http/filter.rs", "&config.filter"),
    (
        "RateLimit.stage",
        "src/http/filter/local_ratelimit/descriptor.rs",
        "config.stage",
    ),
    ("Redirect.host", "src/http/redirect.rs", "config.host"),
    ("Redirect.status", "src/http/redirect.rs", "config.status"),
    (
        "Route.filter_settings",
        "src/http/route_table.rs",
        "&config.filter_settings,cors",
    ),
    (
        "RouteTableConfig.filter_settings",
        "src/http/route_table.rs",
        "&config.filter_settings,None",
    ),
    ("RouteTableConfig.mirrors", "src/http/route_table.rs", ".mirrors"),
    ("VirtualHost.cors", "src/http/route_table.rs", "host.cors"),
    (
        "VirtualHost.filter_settings",
        "src/http/route_table.rs",
        "&host.filter_settings",
    ),
    ("VirtualHost.mirrors", "src/http/route_table.rs", "host.mirrors"),
    (
        "VirtualHost.rate_limits",
        "src/http/route_table.rs",
        "&host.rate_limits",
    ),
    (
        "WeightedCluster.cluster_header",
        "src/http/route_table/forward.rs",
        "&share.cluster_header",
    ),
    (
        "WeightedCluster.filter_settings",
        "src/http/route_table/forward.rs",
        "share.filter_settings",
    ),
    (
        "Endpoint.weight",
        "src/upstream/endpoint/host_set.rs",
        "endpoint.weight",
    ),
    ("ClientCertDetails.dns", "src/http/xfcc.rs", "details.dns"),
    ("Cluster.dns", "src/upstream/dns.rs", "config.dns"),
    ("Cluster.locality", "src/upstream/lb.rs", "config.locality"),
    (
        "Forward.timeout",
        "src/http/router/timeouts.rs",
        "None=>config.timeout",
    ),
    (
        "HealthCheck.interval",
        "src/upstream/health_check.rs",
        "config.interval,",
    ),
    (
        "HealthCheck.timeout",
        "src/upstream/health_check/probe.rs",
        "config.timeout",
    ),
    (
        "LocalityEndpoints.weight",
        "src/upstream/lb/balance.rs",
        "group.weight",
    ),
    (
        "OutlierDetection.interval",
        "src/upstream/outlier.rs",
        "self.config.interval",
    ),
    (
        "TcpKeepalive.interval",
        "src/upstream/connect.rs",
        "keepalive.interval",
    ),
    (
        "MetadataExchange.protocol",
        "src/listener/connection.rs",
        "&exchange.protocol",
    ),
    ("TlsNames.sni", "src/upstream/connect.rs", "names.sni"),
    ("Upgrade.protocol", "src/http/upgrade.rs", "upgrade.protocol"),
    ("UpstreamTls.sni", "src/tls/client.rs", "config.sni"),
];

/// Model folders that hold no configuration.
const NO_CONFIGURATION: &[&str] = &[
    "document", "dump", "field", "decode", "any", "nds", "peer", "tests", "validate",
];

fn is_configuration(path: &str) -> bool {
    path.strip_prefix("proxy/model/src/").is_some_and(|inside| {
        let first = inside.split(['/', '.']).next().unwrap_or_default();
        !NO_CONFIGURATION.contains(&first) && inside.ends_with(".rs")
    })
}

/// What the documentation of a struct or field says when nothing reads it before an issue that is not built yet.
const AWAITS: &str = "Awaits the ";

/// The source without structs and fields that await an issue: the model has them checked and ready, and lists them as without effect.
fn without_awaited(text: &str) -> String {
    let mut kept = String::new();
    let (mut awaits, mut inside) = (false, false);
    for line in text.lines() {
        let code = line.trim_start();
        if inside {
            inside = line != "}";
            continue;
        }
        match code {
            _ if code.starts_with("///") => awaits |= code.contains(AWAITS),
            _ if code.starts_with("#[") => (),
            _ if std::mem::take(&mut awaits) => {
                inside = line.starts_with("pub struct ") && line.ends_with('{');
                continue;
            }
            _ => (),
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// The names in lines of the form `    pub name: Type,`.
fn fields(files: &[SourceFile]) -> BTreeSet<String> {
    let lines = files.iter().flat_map(|file| file.text.lines());
    lines
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(": "))
        .filter(|(name, _)| {
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || b"_0123456789".contains(&byte))
        })
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// `Type.field` for every field whose name several types have.
fn shared(files: &[SourceFile]) -> BTreeSet<String> {
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        for item in file.text.split("\npub struct ").skip(1) {
            let name: String = item.chars().take_while(char::is_ascii_alphanumeric).collect();
            let body = item.split("\n}").next().unwrap_or_default();
            let file = SourceFile {
                path: String::new(),
                text: body.to_owned(),
            };
            for field in fields(&[file]) {
                owners.entry(field).or_default().insert(name.clone());
            }
        }
    }
    let several = owners.into_iter().filter(|(_, owners)| owners.len() > 1);
    several
        .flat_map(|(field, owners)| owners.into_iter().map(move |owner| format!("{owner}.{field}")))
        .collect()
}

/// All words of the files, up to their unit tests.
fn words(files: &[SourceFile]) -> BTreeSet<&str> {
    let code = files
        .iter()
        .map(|file| file.text.split("#[cfg(test)]").next().unwrap_or_default());
    code.flat_map(|text| text.split(|character: char| !(character.is_alphanumeric() || character == '_')))
        .collect()
}

fn forgotten(model: &[SourceFile], proxy: &[SourceFile]) -> Vec<String> {
    let words = words(proxy);
    let is_excused = |name: &str| INSIDE_THE_MODEL.iter().any(|(excused, _)| *excused == name);
    fields(model)
        .into_iter()
        .filter(|name| !words.contains(name.as_str()) && !is_excused(name))
        .collect()
}

/// The model's sources, without what awaits an issue.
fn model_sources() -> Vec<SourceFile> {
    let files = texts(is_configuration).into_iter();
    files
        .map(|file| SourceFile {
            text: without_awaited(&file.text),
            path: file.path,
        })
        .collect()
}

#[test]
fn every_field_of_the_model_has_a_reader() {
    let model = model_sources();
    let proxy =
        texts(|path| path.starts_with("proxy/src/") && path.ends_with(".rs") && !path.contains("test"));
    assert!(fields(&model).len() > 100, "the model's fields were not found");
    let forgotten = forgotten(&model, &proxy);
    assert!(
        forgotten.is_empty(),
        "read by nothing in proxy/src: {forgotten:?}; give them a reader, or another verdict"
    );
}

#[test]
fn every_field_with_a_common_name_has_the_reader_that_is_listed() {
    let listed: BTreeSet<String> = SHARED.iter().map(|(field, _, _)| (*field).to_owned()).collect();
    let shared = shared(&model_sources());
    let differences: Vec<_> = shared.symmetric_difference(&listed).collect();
    assert!(
        differences.is_empty(),
        "fields with common names, without a listed reader or listed in vain: {differences:?}"
    );
    for (field, path, words) in SHARED {
        let text = std::fs::read_to_string(root().join("proxy").join(path)).unwrap_or_default();
        let code: String = text
            .split("#[cfg(test)]")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        assert!(
            code.contains(words),
            "{field}: {path} no longer has `{words}`: list its reader, or give it another verdict"
        );
    }
}

#[test]
fn an_excuse_is_for_a_field_that_exists() {
    let model = fields(&texts(is_configuration));
    for (name, reason) in INSIDE_THE_MODEL {
        assert!(model.contains(*name) && !reason.is_empty(), "{name}");
    }
}

#[test]
fn a_struct_or_field_that_awaits_an_issue_needs_no_reader() {
    let text = "/// A.\npub struct A {\n    /// B.\n    pub b: u32,\n    /// C. Awaits the x issue.\n    pub c: u32,\n}\n\
                /// D. Awaits the x issue.\n#[derive(Eq)]\npub struct D {\n    pub e: u32,\n}\n\
                /// F.\npub struct F {\n    pub g: u32,\n}\n";
    let file = SourceFile {
        path: String::new(),
        text: without_awaited(text),
    };
    let expected: BTreeSet<String> = ["b", "g"].map(str::to_owned).into();
    assert_eq!(fields(&[file]), expected);
}

#[test]
fn a_field_that_only_a_test_reads_is_forgotten() {
    let file = |text: &str| SourceFile {
        path: String::new(),
        text: text.to_owned(),
    };
    let model = [file(
        "pub struct A {\n    pub used: u32,\n    pub unused: u32,\n}\n",
    )];
    let proxy = [file(
        "fn f(a: A) { a.used }\n#[cfg(test)]\nmod tests { a.unused }\n",
    )];
    assert_eq!(forgotten(&model, &proxy), ["unused"]);
}
