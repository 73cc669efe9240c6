//! Endpoints on a made-up process, compared with what Envoy 1.40 answered (tests/golden/admin).
mod connections;
mod logging;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

use http::{Method, StatusCode};
use outrigger_model::document::{UnknownFields, parse_bootstrap};
use outrigger_model::dump::{DumpResource, DumpSection, DumpState};
use outrigger_model::nds::{NameInfo, NameTable};
use prost::Message as _;
use serde_json::Value;

use super::answer::Answer;
use super::endpoint::{self, Outcome};
use super::logger::{Level, Levels, LogControl};
use super::options::Mode;
use super::query::Query;
use super::*;
use crate::config::history::{Difference, Limits, Summary, Totals, UnknownVersion};
use crate::config::problems::{Kind, Listed};
use crate::config::restore::SnapshotStatus;
use crate::stats::TagRules;
use crate::tls::ClientTls;
use crate::upstream::stats::ClusterStats;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../tests/golden/admin/", $name))
    };
}

/// A process that runs on the bootstrap of the golden files.
struct Fake {
    lifecycle: Cell<Lifecycle>,
    options: Options,
    registry: Arc<Registry>,
    clusters: Vec<ListedCluster>,
    node: Bytes,
    drained: Cell<Option<DrainListeners>>,
    quit: Cell<bool>,
    /// How many clusters the dump has.
    dumped: Cell<usize>,
    applied: Arc<std::sync::Mutex<Vec<Levels>>>,
}

impl Fake {
    fn new() -> Rc<Self> {
        let text = golden!("bootstrap.yaml");
        let (proto, _) =
            parse_bootstrap("bootstrap.yaml", text.as_bytes(), None, UnknownFields::Refuse).unwrap();
        let node = Bytes::from(proto.node.clone().unwrap_or_default().encode_to_vec());
        let bootstrap = outrigger_model::decode::bootstrap(proto).unwrap().value;
        let registry = Registry::new(TagRules::new(&[], true).unwrap());
        let cluster = |config: outrigger_model::cluster::Cluster| {
            let stats = ClusterStats::new(&registry, &config.stat_name);
            let cluster = Cluster::new(Arc::new(config), stats, None, &Arc::default(), |tls| {
                Arc::new(ClientTls::new(tls.clone(), Arc::default()))
            });
            ListedCluster {
                cluster: Arc::new(cluster),
                added_via_api: false,
            }
        };
        let clusters = bootstrap.clusters.into_iter().map(cluster).collect();
        let applied: Arc<std::sync::Mutex<Vec<Levels>>> = Arc::default();
        let log = applied.clone();
        let log = LogControl::new(Levels::all(Level::Warning), move |levels| {
            log.lock().unwrap().push(levels.clone())
        });
        let options = Options {
            config_path: Some(PathBuf::from("e.yaml")),
            config_yaml: None,
            mode: Mode::Serve,
            concurrency: 1,
            log_level: Level::Warning,
            component_log_level: String::new(),
            log,
            drain_time: Duration::from_secs(600),
            allow_unknown_static_fields: false,
            service: Default::default(),
            admin_address_path: None,
            history: Limits::default(),
            snapshot: None,
            streams: Default::default(),
            file_flush_interval: Duration::from_secs(10),
        };
        Rc::new(Self {
            lifecycle: Cell::new(Lifecycle::Live),
            options,
            registry,
            clusters,
            node,
            drained: Cell::default(),
            quit: Cell::default(),
            dumped: Cell::default(),
            applied,
        })
    }
}

impl AdminView for Fake {
    fn lifecycle(&self) -> Lifecycle {
        self.lifecycle.get()
    }
    fn uptime(&self) -> Duration {
        Duration::from_millis(2900)
    }
    fn options(&self) -> &Options {
        &self.options
    }
    fn node(&self) -> Bytes {
        self.node.clone()
    }
    fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }
    fn refresh_stats(&self) {
        self.registry.gauge("server.live").set(1);
    }
    fn clusters(&self) -> Vec<ListedCluster> {
        self.clusters.clone()
    }
    fn listeners(&self) -> Vec<BoundListener> {
        let bound = [("l1", "127.0.0.1:25001"), ("l6", "[::1]:25001")];
        let bound = bound.map(|(name, address)| BoundListener {
            name: name.to_owned(),
            address: address.parse().unwrap(),
        });
        bound.into()
    }
    fn unready(&self) -> Vec<UnreadyListener> {
        vec![UnreadyListener {
            name: "web".to_owned(),
            routes: vec!["r1".to_owned()],
            secrets: vec!["ca".to_owned()],
            filters: vec!["f1".to_owned()],
        }]
    }
    fn name_table(&self) -> Option<Arc<NameTable>> {
        let info = NameInfo {
            addresses: vec!["10.0.0.1".parse().unwrap(), "2001:2::1".parse().unwrap()],
            registry: "Kubernetes".to_owned(),
            short_name: "bill".to_owned(),
            namespace: "demo".to_owned(),
        };
        let names = BTreeMap::from([("bill.demo.svc.cluster.local".to_owned(), info)]);
        Some(Arc::new(NameTable { names }))
    }
    fn config_dump(&self) -> ConfigDump {
        // `name` and `connect_timeout`.
        let dumped = |number: usize| {
            let name = format!("{number:05}");
            let bytes = [b"\x0a\x05", name.as_bytes(), b"\x22\x02\x08\x01"].concat();
            DumpResource {
                version: String::new(),
                name,
                bytes: bytes.into(),
                last_updated: SystemTime::UNIX_EPOCH,
                state: DumpState::Active,
            }
        };
        ConfigDump {
            bootstrap: Bytes::new(),
            bootstrap_updated: SystemTime::UNIX_EPOCH,
            clusters: DumpSection {
                version_info: String::new(),
                resources: (0..self.dumped.get()).map(dumped).collect(),
            },
            listeners: DumpSection::default(),
            routes: DumpSection::default(),
            endpoints: DumpSection::default(),
            secrets: DumpSection::default(),
            filters: None,
            scopes: Vec::new(),
        }
    }
    fn problems(&self) -> Problems {
        let listed = |kind, resource: &str, path: &str| Listed {
            kind,
            type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            resource: resource.into(),
            path: path.to_owned(),
            reason: "must be more than 0".to_owned(),
            since: SystemTime::UNIX_EPOCH,
            version: "7".into(),
        };
        Problems {
            listed: vec![
                listed(Kind::Rejected, "a", "connect_timeout"),
                listed(Kind::Unsupported, "b", ""),
            ],
            snapshot: Some(SnapshotStatus {
                path: PathBuf::from("/s"),
                state: "refused",
                reason: Some("too old".to_owned()),
                saved: None,
                since: Some(SystemTime::UNIX_EPOCH),
                types: Vec::new(),
            }),
        }
    }
    fn history(&self) -> Vec<Summary> {
        vec![Summary {
            number: 2,
            type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            version: "v2".to_owned(),
            at: SystemTime::UNIX_EPOCH,
            totals: Totals {
                added: 1,
                changed: 2,
                removed: 0,
            },
        }]
    }
    fn differences(&self, from: u64, to: u64) -> Result<Vec<Difference>, UnknownVersion> {
        if to > 2 {
            return Err(UnknownVersion::Newer {
                wanted: to,
                newest: 2,
            });
        }
        // `name` and `connect_timeout`.
        let cluster = |seconds: u8| Bytes::from(vec![0x0a, 1, b'a', 0x22, 2, 0x08, seconds]);
        let difference = |name: &str, before: Option<u8>, after: Option<u8>| Difference {
            type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            name: name.into(),
            before: before.map(cluster),
            after: after.map(cluster),
        };
        let all = vec![
            difference("a", Some(1), Some(5)),
            difference("b", None, Some(1)),
            difference("c", Some(1), None),
        ];
        Ok(if from == to { Vec::new() } else { all })
    }
    fn drain_listeners(&self, request: DrainListeners) {
        self.drained.set(Some(request));
    }
    fn quit(&self) {
        self.quit.set(true);
    }
}

/// Asks as a client would: `GET /stats?filter=x`.
fn ask(view: &Fake, request: &str) -> Answer {
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    match endpoint::route(view, &method, path, &Query::parse(query)) {
        Outcome::Ready(answer) => answer,
        // Nobody takes pieces: what is asked for here is small.
        Outcome::Later(later) => later(&endpoint::Pieces(tokio::sync::mpsc::channel(1).0)),
    }
}

fn check(view: &Fake, request: &str, status: u16, body: &str) {
    let answer = ask(view, request);
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (status, body),
        "{request}"
    );
}

/// Envoy's order of clusters is that of a hash table.
fn by_cluster(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| !line.contains("::rq_pending_active::"))
        .collect();
    lines.sort_by_key(|line| line.split("::").next());
    lines
}

#[test]
fn clusters_are_listed_as_envoy_lists_them() {
    let answer = ask(&Fake::new(), "GET /clusters");
    assert_eq!(by_cluster(&answer.body), by_cluster(golden!("clusters.txt")));
    assert_eq!(answer.content_type, "text/plain; charset=UTF-8");
}

#[test]
fn clusters_as_json_are_envoys_too() {
    let sorted = |text: &str| {
        let mut json: Value = serde_json::from_str(text).unwrap();
        let statuses = json["cluster_statuses"].as_array_mut().unwrap();
        statuses.sort_by_key(|status| status["name"].to_string());
        for host in statuses
            .iter_mut()
            .filter_map(|status| status["host_statuses"].as_array_mut())
            .flatten()
        {
            host["stats"]
                .as_array_mut()
                .unwrap()
                .retain(|stat| stat["name"] != "rq_pending_active");
        }
        json
    };
    let answer = ask(&Fake::new(), "GET /clusters?format=json");
    assert_eq!(sorted(&answer.body), sorted(golden!("clusters.json")));
    assert_eq!(answer.content_type, "application/json");
}

#[test]
fn counters_of_hosts_are_shown_and_zeros_left_out_of_json() {
    let view = Fake::new();
    let listed = view
        .clusters
        .iter()
        .find(|listed| &*listed.cluster.name == "od")
        .unwrap();
    let host = listed.cluster.dialled_host("10.0.0.1:80".parse().unwrap());
    host.counters
        .cx_total
        .store(3, std::sync::atomic::Ordering::Relaxed);
    let text = ask(&view, "GET /clusters?filter=^od$").body;
    assert!(text.contains("od::10.0.0.1:80::cx_total::3\n"), "{text}");
    assert!(!text.contains("c1::"), "{text}");
    let json: Value =
        serde_json::from_str(&ask(&view, "GET /clusters?filter=^od$&format=json").body).unwrap();
    let stats = &json["cluster_statuses"][0]["host_statuses"][0]["stats"];
    assert_eq!(stats[0], serde_json::json!({"name": "cx_connect_fail"}));
    assert_eq!(stats[1], serde_json::json!({"value": "3", "name": "cx_total"}));
}

#[test]
fn listeners_are_envoys_to_the_letter() {
    let view = Fake::new();
    check(&view, "GET /listeners", 200, golden!("listeners.txt"));
    check(
        &view,
        "GET /listeners?format=json",
        200,
        golden!("listeners.json"),
    );
}

#[test]
fn ready_follows_the_lifecycle() {
    let view = Fake::new();
    for (state, status, body) in [
        (Lifecycle::Live, 200, "LIVE\n"),
        (Lifecycle::PreInitializing, 503, "PRE_INITIALIZING\n"),
        (Lifecycle::Initializing, 503, "INITIALIZING\n"),
        (Lifecycle::Draining, 503, "DRAINING\n"),
    ] {
        view.lifecycle.set(state);
        check(&view, "GET /ready", status, body);
    }
}

#[test]
fn server_info_has_the_members_of_envoys() {
    let ours: Value = serde_json::from_str(&ask(&Fake::new(), "GET /server_info").body).unwrap();
    let envoys: Value = serde_json::from_str(golden!("server_info.json")).unwrap();
    let names = |json: &Value| json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&envoys));
    assert_eq!(
        names(&ours["command_line_options"]),
        names(&envoys["command_line_options"])
    );
    for same in [
        "state",
        "uptime_current_epoch",
        "uptime_all_epochs",
        "hot_restart_version",
    ] {
        assert_eq!(ours[same], envoys[same], "{same}");
    }
    for same in [
        "concurrency",
        "config_path",
        "log_level",
        "drain_time",
        "file_flush_interval",
        "mode",
    ] {
        assert_eq!(
            ours["command_line_options"][same], envoys["command_line_options"][same],
            "{same}"
        );
    }
    assert_eq!(ours["node"]["metadata"], envoys["node"]["metadata"]);
    let version = ours["version"].as_str().unwrap();
    assert_eq!(version.split('/').count(), 5, "{version}");
}

#[test]
fn stats_are_filtered_and_formatted() {
    let view = Fake::new();
    view.registry.counter("a.x").add(2);
    view.registry.counter("a.y");
    check(&view, "GET /stats?filter=^a%5C.", 200, "a.x: 2\na.y: 0\n");
    check(
        &view,
        "GET /stats?usedonly&filter=^a|server.live",
        200,
        "a.x: 2\nserver.live: 1\n",
    );
    check(
        &view,
        "GET /stats?format=json&filter=a.x",
        200,
        r#"{"stats":[{"name":"a.x","value":2}]}"#,
    );
    let prometheus = "# TYPE envoy_a_x counter\nenvoy_a_x{} 2\n";
    check(&view, "GET /stats/prometheus?filter=a.x", 200, prometheus);
    check(
        &view,
        "GET /stats?format=prometheus&filter=a.x&usedonly",
        200,
        prometheus,
    );
}

#[test]
fn a_wrong_query_is_a_400_that_says_what_is_wrong() {
    let view = Fake::new();
    let regex = "Invalid re2 regex: unclosed character class: [";
    for path in ["/stats", "/stats/prometheus", "/clusters"] {
        check(&view, &format!("GET {path}?filter=["), 400, regex);
    }
    check(
        &view,
        "GET /stats?format=html",
        400,
        "usage: /stats?format=(json|prometheus|text)\n",
    );
    let missing = "type=Counters has no implementation here; leave it out\n";
    check(&view, "GET /stats?type=Counters", 400, missing);
    assert_eq!(ask(&view, "GET /stats?type=All").status, StatusCode::OK);
}

#[test]
fn config_dump_takes_masks_and_refuses_as_envoy() {
    let view = Fake::new();
    let empty = "{\n \"configs\": [\n  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.ListenersConfigDump\"\n  }\n ]\n}\n";
    check(&view, "GET /config_dump?mask=dynamic_listeners", 200, empty);
    let refused = ask(&view, "GET /config_dump?resource=zz");
    assert_eq!(
        (refused.status, refused.content_type),
        (StatusCode::NOT_FOUND, "text/plain")
    );
    assert_eq!(refused.body, "zz not found in config dump");
    let dump = |query| ask(&view, &format!("GET /config_dump{query}")).body;
    assert!(
        dump("?include_eds").contains("EndpointsConfigDump") && !dump("").contains("EndpointsConfigDump")
    );
}

#[test]
fn init_dump_shows_what_listeners_wait_for() {
    let view = Fake::new();
    // Envoy's number is the hash of the listener; it says nothing to a reader.
    let number = init_dump::number("web");
    let waiting = [
        "{",
        " \"unready_targets_dumps\": [",
        "  {",
        &format!("   \"name\": \"init manager Listener-local-init-manager web {number}\","),
        "   \"target_names\": [",
        "    \"shared target RdsRouteConfigSubscription RDS init r1\",",
        "    \"shared target SdsApi ca\",",
        "    \"shared target FilterConfigSubscription init f1\"",
        "   ]\n  }\n ]\n}\n",
    ]
    .join("\n");
    for query in ["", "?mask=", "?mask=listener"] {
        check(&view, &format!("GET /init_dump{query}"), 200, &waiting);
    }
    check(&view, "GET /init_dump?mask=cluster", 200, "{}\n");
}

#[test]
fn only_post_changes_anything() {
    let view = Fake::new();
    for path in ["/quitquitquit", "/drain_listeners", "/logging"] {
        check(
            &view,
            &format!("GET {path}"),
            405,
            "Method GET not allowed, POST required.",
        );
    }
    assert!(!view.quit.get());
    check(&view, "POST /quitquitquit", 200, "OK\n");
    assert!(view.quit.get());
    check(&view, "POST /drain_listeners?inboundonly&graceful", 200, "OK\n");
    let asked = DrainListeners {
        graceful: true,
        inbound_only: true,
        skip_exit: false,
    };
    assert_eq!(view.drained.get(), Some(asked));
}

#[test]
fn problems_are_told_as_text_and_json() {
    let view = Fake::new();
    let text = "snapshot /s: refused\n  since 1970-01-01T00:00:00Z\n  too old\n\
                rejected Cluster \"a\": connect_timeout: must be more than 0 (since 1970-01-01T00:00:00Z, version \"7\")\n\
                unsupported Cluster \"b\": must be more than 0 (since 1970-01-01T00:00:00Z, version \"7\")\n";
    check(&view, "GET /config/problems", 200, text);
    let json = ask(&view, "GET /config/problems?format=json").body;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["snapshot"]["state"], "refused");
    assert_eq!(json["problems"][0]["path"], "connect_timeout");
    assert_eq!(json["problems"][1]["kind"], "unsupported");
}

#[test]
fn names_are_told_as_istios_agent_tells_them() {
    let json: serde_json::Value = serde_json::from_str(&ask(&Fake::new(), "GET /config/names").body).unwrap();
    let expected = serde_json::json!({ "table": { "bill.demo.svc.cluster.local": {
        "ips": ["10.0.0.1", "2001:2::1"], "registry": "Kubernetes", "shortname": "bill", "namespace": "demo",
    } } });
    assert_eq!(json, expected);
}

#[test]
fn a_difference_is_told_field_by_field() {
    let view = Fake::new();
    let history = "2 1970-01-01T00:00:00Z Cluster version \"v2\": 1 added, 2 changed, 0 removed\n";
    check(&view, "GET /config/history", 200, history);
    let changed = "changed Cluster \"a\"\n  connect_timeout: \"1s\" -> \"5s\"\nadded Cluster \"b\"\nremoved Cluster \"c\"\n";
    check(&view, "GET /config/diff", 200, changed);
    check(&view, "GET /config/diff?from=0&to=2", 200, changed);
    check(&view, "GET /config/diff?from=2&to=2", 200, "");
    check(
        &view,
        "GET /config/diff?to=9",
        404,
        "there is no version 9; the newest is 2\n",
    );
    check(
        &view,
        "GET /config/diff?from=x",
        400,
        "from: \"x\" is no number of /config/history\n",
    );
    let json = ask(&view, "GET /config/diff?format=json").body;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["resources"][0]["fields"][0]["after"], "5s");
}

#[test]
fn help_lists_the_table_and_so_does_an_unknown_path() {
    let view = Fake::new();
    let help = ask(&view, "GET /help").body;
    assert!(
        help.starts_with("admin commands are:\n  /: Admin home page\n  /clusters: upstream cluster status\n"),
        "{help}"
    );
    assert!(
        help.contains("\n  /quitquitquit (POST): exit the server\n"),
        "{help}"
    );
    assert!(
        help.contains("\n      format: File format to use; One of (text, json)\n"),
        "{help}"
    );
    check(&view, "GET /nope", 404, &format!("invalid path. {help}"));
    assert!(endpoint::ENDPOINTS.is_sorted_by_key(|endpoint| endpoint.path));
    let home = ask(&view, "GET /");
    assert_eq!(home.content_type, "text/html; charset=UTF-8");
    assert!(
        home.body
            .contains("<form action='stats/prometheus' method='get' id='stats/prometheus'>")
    );
}
