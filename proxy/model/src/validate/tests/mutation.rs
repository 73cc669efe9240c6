//! Every line of a good document is spoilt in turn; the complaint must point at it.

use super::*;

const BOOTSTRAP: &str = r#"node:
  id: a
  cluster: b
admin:
  address:
    socket_address:
      address: 127.0.0.1
      port_value: 15000
static_resources:
  secrets:
  - name: cert
    tls_certificate:
      certificate_chain:
        filename: /etc/chain.pem
      private_key:
        filename: /etc/key.pem
  clusters:
  - name: api
    type: STATIC
    connect_timeout: 1.5s
    lb_policy: LEAST_REQUEST
    load_assignment:
      cluster_name: api
      endpoints:
      - priority: 0
        lb_endpoints:
        - health_status: HEALTHY
          endpoint:
            address:
              socket_address:
                address: 127.0.0.1
                port_value: 80
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: api.example
        common_tls_context:
          tls_certificate_sds_secret_configs:
          - name: cert
  listeners:
  - name: web
    address:
      socket_address:
        address: 127.0.0.1
        port_value: 8080
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          route_config:
            name: inline
            virtual_hosts:
            - name: any
              domains:
              - "*"
              routes:
              - match:
                  prefix: /
                route:
                  cluster: api
                  timeout: 3s
          http_filters:
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#;

#[test]
fn the_document_is_good_before_it_is_spoilt() {
    check(BOOTSTRAP, &[]);
}

/// A key, where it stands in its line, and what follows its colon.
fn key(line: &str) -> Option<(usize, &str, &str)> {
    let (key, value) = line.split_once(':')?;
    let name = key.trim_start_matches([' ', '-']);
    Some((key.len() - name.len() + 1, name, value.trim()))
}

fn spoilt(number: usize, line: &str) -> Vec<Finding> {
    let mut lines: Vec<&str> = BOOTSTRAP.lines().collect();
    lines[number] = line;
    let mut findings = findings_of(&[input("a.yaml", lines.join("\n"))]);
    findings.retain(|finding| finding.severity == Severity::Error);
    findings
}

fn check_place(number: usize, column: usize, findings: &[Finding], what: &str) {
    let place = Place {
        line: number + 1,
        column,
    };
    let found = findings.iter().any(|finding| finding.place == Some(place));
    assert!(
        found,
        "line {}: {what}: no complaint at {place:?}: {findings:?}",
        number + 1
    );
}

#[test]
fn a_misspelt_key_is_pointed_at() {
    let mut spoilt_keys = 0;
    for (number, line) in BOOTSTRAP.lines().enumerate() {
        let Some((column, name, _)) = key(line) else {
            continue;
        };
        if name.starts_with('"') {
            continue;
        }
        let misspelt = line.replacen(name, &format!("{name}x"), 1);
        let findings = spoilt(number, &misspelt);
        check_place(number, column, &findings, &misspelt);
        let suggests = findings
            .iter()
            .any(|finding| finding.did_you_mean.as_deref() == Some(name));
        assert!(suggests || name.len() < 3, "{misspelt}: {findings:?}");
        spoilt_keys += 1;
    }
    assert!(spoilt_keys > 50, "{spoilt_keys}");
}

#[test]
fn a_value_of_the_wrong_kind_is_pointed_at() {
    let mut spoilt_values = 0;
    for (number, line) in BOOTSTRAP.lines().enumerate() {
        let Some((_, name, value)) = key(line) else {
            continue;
        };
        if value.is_empty() {
            continue;
        }
        let (before, _) = line.rsplit_once(value).unwrap();
        let wrong = format!("{before}[[wrong]]");
        check_place(
            number,
            before.len() + 1,
            &spoilt(number, &wrong),
            &format!("{name}: {wrong}"),
        );
        spoilt_values += 1;
    }
    assert!(spoilt_values > 25, "{spoilt_values}");
}

#[test]
fn the_same_places_are_found_in_json() {
    // JSON is YAML's flow style; one member a line, so that the lines can be compared.
    let good = "{\n \"name\": \"api\",\n \"type\": \"STATIC\",\n \"connectTimeout\": \"1s\",\n \"loadAssignment\": {\n  \"clusterName\": \"api\"\n }\n}\n";
    let typed = |text: &str| text.replacen('{', &format!("{{ \"@type\": \"{CLUSTER}\","), 1);
    assert!(findings_of(&[input("a.json", typed(good))]).is_empty());
    for (wrong, right, line, column) in [
        ("\"nmae\"", "\"name\"", 2, 2),
        ("\"STATICC\"", "\"STATIC\"", 3, 10),
        ("\"1x\"", "\"1s\"", 4, 20),
        ("\"clusterNam\"", "\"clusterName\"", 6, 3),
        ("[]", "\"api\",\n", 2, 10),
    ] {
        let wrong = if wrong == "[]" { "[],\n" } else { wrong };
        let findings = findings_of(&[input("a.json", typed(&good.replacen(right, wrong, 1)))]);
        let places: Vec<_> = findings.iter().filter_map(|finding| finding.place).collect();
        assert!(places.contains(&Place { line, column }), "{wrong}: {findings:?}");
    }
}
