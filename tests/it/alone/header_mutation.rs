//! Headers and query parameters that a filter changes.

use e2e::beside::{Case, Manager, check, configuration, for_route, get};

const NAME: &str = "envoy.filters.http.header_mutation";
const FILTER: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";

fn add(name: &str, value: &str, action: &str) -> String {
    format!("{{ append: {{ header: {{ key: {name}, value: \"{value}\" }}, append_action: {action} }} }}")
}

fn query(key: &str, value: &str, action: &str) -> String {
    format!("{{ append: {{ record: {{ key: {key}, value: \"{value}\" }}, action: {action} }} }}")
}

fn mutations(level: &str) -> String {
    let all = [
        add("x-level", level, "APPEND_IF_EXISTS_OR_ADD"),
        add("x-last", level, "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-first", level, "ADD_IF_ABSENT"),
    ];
    let steps = all.join(", ");
    format!("mutations: {{ request_mutations: [{steps}], response_mutations: [{steps}] }}")
}

const CASES: &[Case] = &[
    get("/own", &[]),
    get(
        "/own?b=2&a=1&b=3",
        &[
            ("x-gone", "1"),
            ("x-old-1", "a"),
            ("x-old-2", "b"),
            ("x-there", "1"),
            ("x-from", "me"),
        ],
    ),
    get(
        "/own?gone=1&first=2&there=3",
        &[
            ("x-first", "mine"),
            ("x-say", "x-gone=1"),
            ("x-say", "x-there=1"),
            ("user-agent", "a"),
        ],
    ),
    get("/own?q=b+c&gone&=x", &[("x-from", "a/b c")]),
    get("/own", &[("x-status", "503")]),
    get("/levels", &[]),
    get("/levels", &[("x-level", "mine"), ("x-first", "mine")]),
    get("/levels", &[]).listener(1),
    get("/share", &[]),
    get("/direct", &[]),
    get("/nowhere", &[]),
    get("/off", &[]),
];

#[test]
fn headers_and_queries_change_as_in_envoy() {
    let own = format!(
        "mutations: {{ request_mutations: [{{ remove: x-gone }}, {{ remove_on_match: {{ key_matcher: {{ prefix: x-old }} }} }}, {}, {}, {}, {}, {}, {}],
           query_parameter_mutations: [{{ remove: gone }}, {}, {}, {}, {}],
           response_mutations: [{{ remove: x-gone }}, {}, {}, {}] }}",
        add("x-first", "%REQ(x-from)%", "ADD_IF_ABSENT"),
        add("x-first", "second", "APPEND_IF_EXISTS_OR_ADD"),
        add("x-there", "new", "OVERWRITE_IF_EXISTS"),
        add("x-seen", "%REQ(x-first)%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-empty", "%REQ(x-nobody)%", "APPEND_IF_EXISTS_OR_ADD"),
        add("user-agent", "more", "APPEND_IF_EXISTS_OR_ADD"),
        query("first", "%REQ(x-from)%", "APPEND_IF_EXISTS_OR_ADD"),
        query("there", "new", "OVERWRITE_IF_EXISTS"),
        query("other", "o&p", "ADD_IF_ABSENT"),
        query("b", "all", "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-code", "%RESPONSE_CODE%", "OVERWRITE_IF_EXISTS_OR_ADD"),
        add("x-there", "%REQ(x-from)%-%RESP(x-code)%", "OVERWRITE_IF_EXISTS"),
        add("x-server", "%RESP(server)%", "APPEND_IF_EXISTS_OR_ADD"),
    );
    let per_route = |level: &str| for_route(NAME, &format!("{FILTER}PerRoute"), &mutations(level));
    let manager = |last: bool| {
        let routes = format!(
            "{} virtual_hosts: [{{ name: all, domains: [\"*\"], {} routes: [
               {{ match: {{ prefix: /own }}, {} route: {{ cluster: echo }} }},
               {{ match: {{ prefix: /levels }}, {} route: {{ cluster: echo }} }},
               {{ match: {{ prefix: /share }}, {} route: {{ weighted_clusters: {{ clusters: [{{ name: echo, weight: 1, {} }}] }} }} }},
               {{ match: {{ prefix: /direct }}, direct_response: {{ status: 200 }} }},
               {{ match: {{ prefix: /off }}, {} route: {{ cluster: echo }} }}] }}]",
            per_route("table"),
            per_route("host"),
            per_route("own"),
            per_route("route"),
            per_route("route"),
            per_route("share"),
            for_route(NAME, "envoy.config.route.v3.FilterConfig", "disabled: true"),
        );
        let manager = Manager {
            routes,
            ..Manager::default()
        };
        manager.filter(
            NAME,
            FILTER,
            &format!("{own}, most_specific_header_mutations_wins: {last}"),
        )
    };
    check(&configuration(&[manager(false), manager(true)], &[]), CASES);
}
