//! Streams of a manager that is configured as a bootstrap file says it.
use std::cell::Cell;
use std::pin::pin;

use outrigger_model::document::{UnknownFields, parse_bootstrap};
use outrigger_model::filter_chain::TerminalFilter;
use outrigger_model::hcm::RouteSource;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::*;
use crate::codec::body::{BodyError, BodyObserver};
use crate::http::manager::Parts;
use crate::http::route_table::{RouteCell, RouteTable};
use crate::http::scoped_routes::Routes;
use crate::stats::{Registry, TagRules};
use crate::telemetry::access_log::{AccessLogger, LogSinks};
use crate::telemetry::istio_stats::IstioMetrics;
use crate::telemetry::peer::LocalPeers;
use crate::telemetry::stream_info::ConnectionInfo;

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";

/// With these filters, each in flow style with a comma at its end; every request gets the same answer.
fn manager(filters: &str) -> Arc<ConnectionManager> {
    let text = format!(
        "node: {{ id: one, cluster: c }}
static_resources: {{ listeners: [{{ name: l, address: {{ socket_address: {{ address: 127.0.0.1, port_value: 1 }} }},
  filter_chains: [{{ filters: [{{ name: envoy.filters.network.http_connection_manager, typed_config: {{
    \"@type\": {FILTERS}.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: s,
    route_config: {{ virtual_hosts: [{{ name: all, domains: [\"*\"], routes: [
      {{ match: {{ prefix: / }}, direct_response: {{ status: 200, body: {{ inline_string: fresh }} }} }}] }}] }},
    http_filters: [{filters}{{ name: envoy.filters.http.router, typed_config: {{
      \"@type\": {FILTERS}.http.router.v3.Router }} }}] }} }}] }}] }}] }}\n"
    );
    let parsed = parse_bootstrap("b.yaml", text.as_bytes(), None, UnknownFields::Refuse);
    let bootstrap = outrigger_model::decode::bootstrap(parsed.expect("a bootstrap").0);
    let bootstrap = bootstrap.expect("what is supported").value;
    let TerminalFilter::Http(config) = &bootstrap.listeners[0].filter_chains[0].terminal else {
        panic!("it is a connection manager");
    };
    let RouteSource::Inline(table) = &config.routes else {
        panic!("its routes are written there");
    };
    let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
    let table = RouteTable::new(table, &Arc::default(), &registry).expect("routes");
    let parts = Parts {
        direction: bootstrap.listeners[0].direction,
        routes: Routes::Table(RouteCell::new(table)),
        access_log: AccessLogger::build(&[], &LogSinks::new(&registry).expect("a thread")).expect("no log"),
        discovered: None,
        local_peers: &LocalPeers::new(bootstrap.node.clone()),
        istio: &IstioMetrics::new(&registry, &bootstrap.node),
        registry: &registry,
        clusters: &Arc::default(),
        buffer_limit_bytes: bootstrap.listeners[0].buffer_limit_bytes,
    };
    Arc::new(ConnectionManager::new((**config).clone(), parts).expect("no regular expression"))
}

fn downstream() -> Rc<Downstream> {
    let address = ([127, 0, 0, 1], 1).into();
    Rc::new(Downstream::new(
        Arc::new(ConnectionInfo::new(0, address, address)),
        None,
    ))
}

fn post(body: Body) -> Request {
    Request {
        head: RequestHead {
            method: Method::POST,
            path: "/".parse().expect("a path"),
            authority: HeaderValue::from_static("a"),
            scheme: "http",
            version: Version::HTTP_2,
            headers: HeaderMap::new(),
            is_upgrade: false,
        },
        body,
        feedback: Feedback::default(),
    }
}

fn filter(name: &str, message: &str, fields: &str) -> String {
    format!(
        "{{ name: envoy.filters.http.{name}, typed_config: {{ \"@type\": {FILTERS}.http.{name}.v3.{message}, {fields} }} }}, "
    )
}

/// Hears that nobody reads a body any more.
#[derive(Debug, Default)]
struct Left(Cell<bool>);

impl BodyObserver for Left {
    fn data(&self, _data: &Bytes) {}
    fn end(&self) {}
    fn error(&self, _error: &BodyError) {}
    fn abandoned(&self) {
        self.0.set(true);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_filters_wait_leaves_no_body() {
    let delay = "delay: { fixed_delay: 5s, percentage: { numerator: 100 } }";
    let filters = [
        filter("fault", "HTTPFault", delay),
        filter("buffer", "Buffer", "max_request_bytes: 100"),
    ];
    let (manager, downstream) = (manager(&filters.concat()), downstream());
    let left = Rc::new(Left::default());
    let body = Body::full("to be buffered").observe(left.clone());
    {
        let stream = pin!(run(&manager, &downstream, post(body), None));
        let early = tokio::time::timeout(Duration::from_secs(1), stream).await;
        assert!(early.is_err(), "it is delayed");
        assert!(!left.0.get());
    }
    assert!(left.0.get());
    assert_eq!(Rc::strong_count(&downstream), 1);
}

#[tokio::test(start_paused = true)]
async fn a_health_check_that_is_answered_from_memory_does_not_renew_it() {
    let fields =
        "pass_through_mode: true, cache_time: 2s, headers: [{ name: \":path\", string_match: { exact: / } }]";
    let manager = manager(&filter("health_check", "HealthCheck", fields));
    let downstream = downstream();
    let check = async |body: Body, wanted: &[u8]| {
        let mut response = run(&manager, &downstream, post(body), None).await;
        let answer = response.body.frame().await;
        let answer = answer.and_then(|frame| frame.expect("whole").into_data().ok());
        assert_eq!(answer.unwrap_or_default(), wanted);
    };
    check(Body::empty(), b"fresh").await;
    sleep(Duration::from_millis(1500)).await;
    check(Body::empty(), b"").await;
    let (pieces, none) = mpsc::channel(1);
    drop(pieces);
    let slow = Body::made(Bytes::from_static(b"slow"), none, async {
        sleep(Duration::from_secs(1)).await;
        Some(Bytes::new())
    });
    check(slow, b"").await;
    check(Body::empty(), b"fresh").await;
}
