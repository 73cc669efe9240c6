//! A thousand requests: split as the VirtualService says, with the identities of both sides, over TLS 1.3 only.

use e2e::http::Response;
use e2e::load::Report;
use e2e::mesh::{BILL, BILL_HOST, Mesh, Plan, Scenario};
use e2e::pcap::{Capture, Conversation};
use e2e::tools::APP_UID;

use super::{Pair, assert_no_failure, assert_share, for_every_pair};

for_every_pair!(a_thousand_requests_are_split_over_mtls);

fn a_thousand_requests_are_split_over_mtls(pair: Pair) {
    let mesh = Mesh::start(&Plan::new(Scenario::Bill, pair.front, pair.bill));
    let capture = Capture::start(mesh.network(), mesh.folder());

    let (kept, fresh) = (mesh.requests(500, true), mesh.requests(500, false));
    let both = Report {
        samples: [kept.samples, fresh.samples].concat(),
    };
    assert_no_failure(&both);
    assert_eq!(both.samples.len(), 1000);
    assert_share(&both, "v1", 90.0, 3.0);

    plain_curl_gets_an_answer(&mesh);
    the_application_sees_what_istio_promises(&mesh.get("/seen"));
    let conversations = capture.stop();
    only_tls_13_between_pods(&conversations);
}

fn plain_curl_gets_an_answer(mesh: &Mesh) {
    let mut command = mesh.pod("front").namespace.command(APP_UID, "curl".as_ref());
    command
        .args(["-sS", "-i", "-m", "10", "-H"])
        .arg(format!("Host: {BILL_HOST}"))
        .arg(format!("http://{BILL}/"));
    let output = command.output().expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("\r\nserver: envoy\r\n"), "{text}");
}

fn the_application_sees_what_istio_promises(response: &Response) {
    let one = |name: &str| {
        let values = response.seen_values(name);
        assert_eq!(values.len(), 1, "{name} at the application: {values:?}");
        values.into_iter().next().unwrap_or_default()
    };
    let xfcc = one("x-forwarded-client-cert");
    let parts: Vec<&str> = xfcc.split(';').collect();
    assert_eq!(parts[0], "By=spiffe://cluster.local/ns/default/sa/bill-service");
    let hash = parts[1].strip_prefix("Hash=").unwrap_or_default();
    assert!(
        hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{xfcc}"
    );
    assert_eq!(
        parts[2..],
        [
            "Subject=\"\"",
            "URI=spiffe://cluster.local/ns/default/sa/front-tomcat"
        ]
    );

    let id = one("x-request-id");
    assert!(id.len() == 36 && id.split('-').count() == 5, "request id {id}");
    assert_eq!(one("x-envoy-attempt-count"), "1");
    assert_eq!(one("x-forwarded-proto"), "http");
    assert_eq!(one("host"), BILL_HOST);
    for name in ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id"] {
        assert!(
            response.seen_values(name).is_empty(),
            "{name} reached the application: {:?}",
            response.seen()
        );
        assert!(
            response.head.value(name).is_none(),
            "{name} reached the client: {:?}",
            response.head
        );
    }
}

fn only_tls_13_between_pods(conversations: &[Conversation]) {
    assert!(
        conversations.iter().any(Conversation::is_complete),
        "nothing passed between pods"
    );
    // Of a thousand requests, eight at a time: Envoy opens about twenty.
    assert!(
        conversations.len() < 100,
        "{} connections: they are not used again",
        conversations.len()
    );
    for conversation in conversations {
        let (client, server) = (conversation.client, conversation.server);
        conversation
            .is_tls13()
            .unwrap_or_else(|error| panic!("{client} to {server}: {error}"));
    }
}
