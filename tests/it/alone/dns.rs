//! STRICT_DNS and LOGICAL_DNS: what is asked of a name server, how often, and which hosts come of its answers.

use e2e::alone::Alone;
use e2e::beside::{check_with, counters};
use e2e::mesh::PATIENCE;
use e2e::process::until;

use self::server::{Scripts, Told, hosts};

mod server;

/// A cluster whose one host has a name.
struct Named {
    /// The first label of the name too, which is in `test.`
    name: &'static str,
    /// Fields of the cluster; `DNS` is who is asked, and that answers hold as long as they say.
    fields: &'static str,
    /// Words for questions for A and AAAA records. The last one of all holds for long, or failures do: then nothing changes any more.
    a: &'static str,
    aaaa: &'static str,
}

const CARES: &str =
    "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";
const SERVER: &str = "{ socket_address: { address: 127.0.0.1, port_value: 5353 } }";

const fn named(name: &'static str, fields: &'static str, a: &'static str, aaaa: &'static str) -> Named {
    Named {
        name,
        fields,
        a,
        aaaa,
    }
}

const CASES: &[Named] = &[
    // Which hosts answers make.
    named(
        "strict",
        "STRICT V4_ONLY DNS",
        "10.0.0.1 10.0.0.2,10.0.0.1 10.0.0.1 10.0.0.3/300",
        "",
    ),
    named(
        "logical",
        "LOGICAL V4_ONLY DNS",
        "10.0.0.1 10.0.0.2,10.0.0.1 10.0.0.3/300",
        "",
    ),
    named(
        "same",
        "STRICT V4_ONLY DNS",
        "10.0.0.1 10.0.0.1 10.0.0.1,10.0.0.1/300",
        "",
    ),
    named(
        "turned",
        "STRICT V4_ONLY DNS",
        "10.0.0.1,10.0.0.2 10.0.0.2,10.0.0.1/300",
        "",
    ),
    named("none", "STRICT V4_ONLY DNS", "10.0.0.1 none 10.0.0.2/300", ""),
    named(
        "logicalnone",
        "LOGICAL V4_ONLY DNS",
        "10.0.0.1 none 10.0.0.2/300",
        "",
    ),
    named("nx", "STRICT V4_ONLY DNS", "10.0.0.1 nx 10.0.0.2/300", ""),
    named("logicalnx", "LOGICAL V4_ONLY DNS", "10.0.0.1 nx 10.0.0.2/300", ""),
    named(
        "alias",
        "STRICT V4_ONLY DNS",
        "alias:10.0.0.1 alias:10.0.0.1,10.0.0.2/300",
        "",
    ),
    // Failures change nothing.
    named(
        "fails",
        "STRICT V4_ONLY DNS",
        "10.0.0.1 servfail refused servfail 10.0.0.2/300",
        "",
    ),
    named(
        "logicalfails",
        "LOGICAL V4_ONLY DNS",
        "10.0.0.1 refused 10.0.0.2/300",
        "",
    ),
    named(
        "failsfirst",
        "STRICT V4_ONLY DNS",
        "servfail refused 10.0.0.2/300",
        "",
    ),
    named("nxfirst", "STRICT V4_ONLY DNS", "nx none 10.0.0.2/300", ""),
    named(
        "failslong",
        "STRICT V4_ONLY DNS, dns_failure_refresh_rate: { base_interval: 100000s, max_interval: 100000s }",
        "10.0.0.1 10.0.0.2 servfail",
        "",
    ),
    named("silent", "STRICT V4_ONLY HASTY", "silent 10.0.0.1/300", ""),
    // Families.
    named(
        "six",
        "STRICT V6_ONLY DNS",
        "10.0.0.1/300",
        "fd00::1 fd00::2,fd00::1/300",
    ),
    named(
        "auto",
        "STRICT AUTO DNS",
        "10.0.0.1 10.0.0.2",
        "none nx fd00::1/300",
    ),
    named("autosix", "STRICT AUTO DNS", "10.0.0.1/300", "fd00::1/300"),
    named("four", "STRICT V4_PREFERRED DNS", "none 10.0.0.1/300", "fd00::1"),
    named(
        "fouralone",
        "STRICT V4_PREFERRED DNS",
        "10.0.0.1/300",
        "fd00::1/300",
    ),
    named(
        "all",
        "STRICT ALL DNS",
        "10.0.0.1 10.0.0.2 10.0.0.3/300",
        "fd00::1 none fd00::3/300",
    ),
    named("allfour", "STRICT ALL DNS", "10.0.0.1/300", "none"),
    named(
        "logicalsix",
        "LOGICAL V6_ONLY DNS",
        "",
        "fd00::2,fd00::1 fd00::1/300",
    ),
    // When the next question comes.
    named(
        "short",
        "STRICT V4_ONLY DNS, dns_jitter: 0.01s",
        "10.0.0.1/1 10.0.0.2/1 10.0.0.3/300",
        "",
    ),
    named(
        "unheard",
        "STRICT V4_ONLY PLAIN",
        "10.0.0.1/300 10.0.0.2/300 10.0.0.3/300",
        "",
    ),
    // How it is asked.
    named("cut", "STRICT V4_ONLY DNS", "cut 10.0.0.1 cut 10.0.0.2/300", ""),
    named("tcp", "STRICT V4_ONLY TCP", "10.0.0.1 10.0.0.2/300", ""),
    named(
        "resolution",
        "STRICT V4_ONLY RESOLUTION",
        "10.0.0.1 10.0.0.2/300",
        "",
    ),
    named("edns", "STRICT V4_ONLY EDNS", "10.0.0.1 10.0.0.2/300", ""),
];

fn cluster(named: &Named) -> String {
    let Named { name, fields, .. } = named;
    let cares = |more: &str| {
        format!(
            "typed_dns_resolver_config: {{ name: envoy.network.dns_resolver.cares, typed_config: {{ \"@type\": {CARES}, resolvers: [{SERVER}], \
             {more} }} }}"
        )
    };
    let patient = "query_timeout_seconds: 30, query_tries: 1";
    let options = "dns_resolver_options: { no_default_search_domain: true }";
    let over_tcp = "dns_resolver_options: { no_default_search_domain: true, use_tcp_for_dns_lookups: true }";
    let fields = fields
        .replace("STRICT ", "type: STRICT_DNS, ")
        .replace("LOGICAL ", "type: LOGICAL_DNS, ");
    let fields =
        ["V4_ONLY", "V6_ONLY", "V4_PREFERRED", "AUTO", "ALL"]
            .iter()
            .fold(fields, |fields, family| {
                fields.replace(
                    &format!(", {family} "),
                    &format!(", dns_lookup_family: {family}, "),
                )
            });
    let fields = fields
        .replace(
            " DNS",
            &format!(
                " respect_dns_ttl: true, {}",
                cares(&format!("{patient}, {options}"))
            ),
        )
        .replace(" PLAIN", &cares(&format!("{patient}, {options}")))
        .replace(
            " TCP",
            &format!(
                " respect_dns_ttl: true, {}",
                cares(&format!("{patient}, {over_tcp}"))
            ),
        )
        .replace(
            " HASTY",
            &format!(
                " respect_dns_ttl: true, {}",
                cares(&format!("query_timeout_seconds: 1, query_tries: 1, {options}"))
            ),
        )
        .replace(
            " EDNS",
            &format!(
                " respect_dns_ttl: true, {}",
                cares(&format!(
                    "{patient}, {options}, edns0_max_payload_size: 1232, rotate_nameservers: true"
                ))
            ),
        )
        .replace(
            " RESOLUTION",
            &format!(
                " respect_dns_ttl: true, dns_resolution_config: {{ resolvers: [{SERVER}], {over_tcp} }}"
            ),
        );
    with_endpoints(
        name,
        &fields,
        &format!(
            "{{ lb_endpoints: [{}] }}",
            endpoint(&format!("{name}.test"), 80, "")
        ),
    )
}

fn endpoint(address: &str, port: u16, more: &str) -> String {
    format!(
        "{{ endpoint: {{ {more} address: {{ socket_address: {{ address: {address}, port_value: {port} }} }} }} }}"
    )
}

fn with_endpoints(name: &str, fields: &str, endpoints: &str) -> String {
    format!(
        "  - {{ name: {name}, connect_timeout: 1s, dns_refresh_rate: 0.05s, {fields}, load_assignment: {{ cluster_name: {name}, endpoints: [{endpoints}] }} }}\n"
    )
}

/// A name, and the words for its A questions.
type Words = (&'static str, &'static str);

/// Several names in one cluster: its name, endpoints, and the words of each name.
fn several() -> Vec<(&'static str, String, Vec<Words>)> {
    let at = |name: &str, port, more: &str| endpoint(name, port, more);
    vec![
        (
            "many",
            format!(
                "{{ lb_endpoints: [{}, {}] }}, {{ priority: 1, lb_endpoints: [{}] }}",
                at("many-a.test", 80, ""),
                at("many-b.test", 81, "hostname: other,"),
                at("many-c.test", 83, ""),
            ),
            vec![
                ("many-a.test.", "10.0.0.1 10.0.0.1,10.0.0.2/300"),
                ("many-b.test.", "10.0.0.1/300"),
                ("many-c.test.", "nx 10.0.0.7 none 10.0.0.8/300"),
            ],
        ),
        // Envoy asks for addresses too, each time.
        (
            "fixed",
            format!(
                "{{ lb_endpoints: [{}, {}] }}",
                at("fixed-a.test", 80, ""),
                at("10.9.9.9", 80, "")
            ),
            vec![("fixed-a.test.", "10.0.0.1 10.0.0.2/300")],
        ),
    ]
}

#[test]
fn hosts_follow_names_as_in_envoy() {
    let strict = cluster(&named("x", "STRICT V4_ONLY DNS", "", ""));
    let fields = strict
        .split_once("0.05s, ")
        .and_then(|(_, rest)| rest.split_once(", load_assignment"));
    let (fields, _) = fields.expect("written above");
    let mut clusters: String = CASES.iter().map(cluster).collect();
    let mut scripts = Scripts::new();
    let words = |text: &'static str| {
        text.split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
    };
    for Named { name, a, aaaa, .. } in CASES {
        scripts.insert((format!("{name}.test."), 1), words(a));
        scripts.insert((format!("{name}.test."), 28), words(aaaa));
    }
    for (name, endpoints, names) in several() {
        clusters += &with_endpoints(name, fields, &endpoints);
        for (name, script) in names {
            scripts.insert((name.to_owned(), 1), words(script));
        }
    }
    let told = Told::default();
    check_with(
        &format!("  clusters:\n{clusters}"),
        |namespace, _| {
            told.lock().expect("no panic holds it").clear();
            server::start(namespace, scripts.clone(), told.clone());
        },
        |alone| {
            let cases = CASES.iter().map(|named| {
                let names = vec![(format!("{}.test.", named.name), questions(named))];
                (named.name, names)
            });
            let more = several().into_iter().map(|(cluster, _, names)| {
                let names = names
                    .into_iter()
                    .map(|(name, script)| (name.to_owned(), words(script).len()));
                (cluster, names.collect())
            });
            let all: Vec<_> = cases.chain(more).collect();
            all.iter()
                .flat_map(|(cluster, names)| findings(alone, &told, cluster, names))
                .collect()
        },
    );
}

/// How many questions come for a name: where two families are wanted, one after the other, or both each time.
fn questions(named: &Named) -> usize {
    let count = |script: &str| script.split(' ').filter(|word| !word.is_empty()).count();
    let (a, aaaa) = (count(named.a), count(named.aaaa));
    match named.name {
        "autosix" | "fouralone" => 1,
        "allfour" => 2,
        "six" | "logicalsix" => aaaa,
        _ => a + aaaa,
    }
}

/// What came of a cluster's names when nothing changes any more.
fn findings(alone: &Alone, told: &Told, cluster: &str, names: &[(String, usize)]) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, count) in names {
        let asked = until(&format!("{name}: {count} questions"), PATIENCE, || {
            let told = told.lock().expect("no panic holds it");
            let lines = told.get(name).filter(|lines| lines.len() >= *count)?;
            Some(lines[..*count].to_vec())
        });
        let mut asked = asked;
        if names.len() > 1 {
            // What others have been answered until then is chance.
            asked
                .iter_mut()
                .for_each(|line| line.truncate(line.find(',').unwrap_or(line.len())));
        }
        if cluster.starts_with("all") {
            // Both at a time, in any order.
            asked.sort();
        }
        lines.push(format!("{name}\n    {}", asked.join("\n    ")));
    }
    let is_still = !["unheard", "fixed"].contains(&cluster);
    let stats = |names: &[&str]| {
        let names: Vec<_> = names
            .iter()
            .map(|name| format!("cluster.{cluster}.{name}"))
            .collect();
        counters(alone, &names.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let counts = ["update_success", "update_failure", "update_attempt"];
    // The last answer is in when every question has come to something.
    let ended = until(&format!("{cluster}: answers"), PATIENCE, || {
        let counted = stats(&counts);
        let values: Option<Vec<u64>> = counted
            .iter()
            .map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        let values = values?;
        (!is_still || values[0] + values[1] == values[2]).then_some(counted)
    });
    if is_still {
        lines.push(format!("{ended:?}"));
        lines.push(
            stats(&[
                "update_no_rebuild",
                "update_empty",
                "membership_change",
                "membership_total",
            ])
            .join(", "),
        );
    }
    let clusters = alone.admin("/clusters").expect("the admin interface").body;
    lines.push(format!("{cluster} has {}", hosts(&clusters, cluster)));
    lines
}
