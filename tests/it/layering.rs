//! Who may know whom: reads the paths in the source and refuses what ARCHITECTURE.md forbids.
//!
//! Four rules: a module of `proxy/src` names only modules to its left; a library that could be replaced is named in one
//! folder; a crate below does not know what is above it; a file is short and says what it is for. All violations are
//! reported at once, as `file:line: what, why`.

mod paths;

use paths::{NamedPath, Target, named_paths, target};

use crate::repo::{self, SourceFile};

/// The modules of `proxy/src`, from the one that knows least to the one that knows most. A module may name those of its
/// own row and of the rows before it.
const ROWS: &[&[&str]] = &[
    &["time", "pace", "packed", "worker", "drain"],
    &["stats", "net"],
    &["telemetry"],
    &["tls"],
    &["codec"],
    &["upstream"],
    &["http"],
    &["network_filter"],
    &["listener"],
    &["export"],
    &["config"],
    &["agent"],
    &["admin"],
    &["server"],
    &["cli", "main"],
];

/// Longest file that a newcomer still enters without a map, in lines.
const MAX_LINES: usize = 600;

/// Libraries of which only some modules of `proxy/src` may know.
struct Home {
    /// First segments of paths.
    libraries: &'static [&'static str],
    modules: &'static [&'static str],
    reason: &'static str,
}

const HOMES: &[Home] = &[
    Home {
        libraries: &["hyper", "hyper_util", "h2", "httparse"],
        modules: &["codec"],
        reason: "everything else speaks http messages through codec",
    },
    Home {
        libraries: &["rustls", "tokio_rustls", "rustls_pki_types", "webpki"],
        modules: &["tls"],
        reason: "replacing the TLS library is a change to one folder",
    },
    Home {
        libraries: &["socket2", "nix", "uapi"],
        modules: &["net", "main"],
        reason: "sockets and system calls come from net",
    },
    Home {
        libraries: &["tonic"],
        modules: &["export", "agent"],
        reason: "gRPC is for the control thread; xDS has its transport in xds-client",
    },
    Home {
        libraries: &["envoy_types", "prost", "prost_types", "prost_reflect"],
        modules: &["config", "agent", "admin"],
        reason: "protobuf ends in outrigger-model; the data path sees its types only",
    },
    Home {
        libraries: &["opentelemetry", "opentelemetry_sdk", "opentelemetry_otlp"],
        modules: &["telemetry"],
        reason: "replacing the tracing library is a change to one folder",
    },
    Home {
        libraries: &["lz4_flex"],
        modules: &["packed"],
        reason: "what is at rest is packed in one way",
    },
    Home {
        libraries: &["outrigger_demo"],
        modules: &["cli", "main"],
        reason: "the demo is linked by the binary only",
    },
];

/// What a whole crate must not name.
struct Ban {
    folder: &'static str,
    /// Beginnings of paths.
    paths: &'static [&'static str],
    reason: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        folder: "proxy/model/src/",
        paths: &[
            "outrigger",
            "xds_client",
            "tokio",
            "hyper",
            "h2",
            "rustls",
            "tokio_rustls",
            "socket2",
            "nix",
            "tonic",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime::now",
            "SystemTime::now",
        ],
        reason: "the model is what a configuration means: no socket, clock, task or counter",
    },
    Ban {
        folder: "xds-client/src/",
        paths: &[
            "outrigger",
            "outrigger_model",
            "outrigger_demo",
            "rustls",
            "socket2",
            "nix",
        ],
        reason: "the xDS client serves any owner: it knows Any and names, not what they mean",
    },
    Ban {
        folder: "iptables-init/src/",
        paths: &[
            "outrigger",
            "outrigger_model",
            "xds_client",
            "envoy_types",
            "tokio",
            "hyper",
            "rustls",
        ],
        reason: "the init program is small, and runs before there is a proxy",
    },
];

#[test]
fn modules_name_only_modules_to_their_left() {
    let found: Vec<String> = rust_files("proxy/src/")
        .iter()
        .flat_map(layer_violations)
        .collect();
    repo::assert_none(&found, "layer order of ARCHITECTURE.md");
}

#[test]
fn replaceable_libraries_stay_in_their_folder() {
    let found: Vec<String> = rust_files("proxy/src/")
        .iter()
        .flat_map(home_violations)
        .collect();
    repo::assert_none(&found, "one folder a library");
}

#[test]
fn lower_crates_do_not_know_what_is_above_them() {
    let found: Vec<String> = rust_files("").iter().flat_map(ban_violations).collect();
    repo::assert_none(&found, "what a crate must not know");
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let found: Vec<String> = rust_files("").iter().flat_map(shape_violations).collect();
    repo::assert_none(&found, "shape of a file");
}

#[test]
fn a_path_to_the_right_is_found_however_it_is_written() {
    let check = |path: &str, text: &str, expected: &[&str]| {
        let file = SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let found = layer_violations(&file);
        let matches =
            found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.starts_with(e));
        assert!(matches, "{path}: {text}\nexpected {expected:?}\nfound {found:?}");
    };
    check(
        "proxy/src/net/listen.rs",
        "use crate::{stats::Slot, time, drain::Guard};",
        &[],
    );
    check("proxy/src/stats.rs", "use crate::net::Remote;", &[]);
    check(
        "proxy/src/tls/server.rs",
        "//! x\n\nuse crate::codec::h1;",
        &["proxy/src/tls/server.rs:3: tls names codec"],
    );
    check(
        "proxy/src/time.rs",
        "fn f() { crate::admin::run() }",
        &["proxy/src/time.rs:1: time names admin"],
    );
    check(
        "proxy/src/net/listen.rs",
        "use super::super::server;",
        &["proxy/src/net/listen.rs:1: net names server"],
    );
    check(
        "proxy/src/http/head.rs",
        "mod tests { use super::super::super::config::x; }",
        &["proxy/src/http/head.rs:1: http names config"],
    );
    check(
        "proxy/src/http/head.rs",
        "use crate::*;",
        &["proxy/src/http/head.rs:1: http names the root"],
    );
    check(
        "proxy/src/util/x.rs",
        "",
        &["proxy/src/util/x.rs:1: util has no place"],
    );
    check(
        "proxy/src/http.rs",
        "use crate::util::x;",
        &["proxy/src/http.rs:1: http names util"],
    );
    check(
        "proxy/src/http.rs",
        "/* use crate::server; */ const X: &str = \"crate::server::x\";",
        &[],
    );
    check(
        "proxy/src/main.rs",
        "mod cli; use outrigger::server; fn main() { crate::cli::run() }",
        &[],
    );
}

#[test]
fn a_library_outside_its_folder_is_found() {
    let check = |path: &str, text: &str, expected: Option<&str>| {
        let file = SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let found: Vec<String> = home_violations(&file)
            .into_iter()
            .chain(ban_violations(&file))
            .collect();
        assert_eq!(
            found.len(),
            usize::from(expected.is_some()),
            "{path}: {text}\nfound {found:?}"
        );
        assert!(
            found.iter().zip(expected).all(|(f, e)| f.starts_with(e)),
            "{found:?}"
        );
    };
    check("proxy/src/codec/h2.rs", "use h2::client; use hyper::body;", None);
    check("proxy/src/http/stream.rs", "use crate::codec::{h2, h1};", None);
    check("proxy/src/upstream/pool.rs", "mod h2;\nuse h2::Pool;", None);
    check(
        "proxy/src/http/stream.rs",
        "use h2::client;",
        Some("proxy/src/http/stream.rs:1: http names h2::client"),
    );
    check(
        "proxy/src/admin/x.rs",
        "\nfn f(x: &rustls::Error) {}",
        Some("proxy/src/admin/x.rs:2: admin names rustls"),
    );
    check(
        "proxy/src/tls.rs",
        "use {envoy_types as pb};",
        Some("proxy/src/tls.rs:1: tls names envoy_types"),
    );
    check("proxy/src/config/store.rs", "use prost::Message;", None);
    check(
        "proxy/model/src/node.rs",
        "use std::time::{Duration, SystemTime};",
        None,
    );
    check(
        "proxy/model/src/node.rs",
        "fn f() { SystemTime::now(); }",
        Some("proxy/model/src/node.rs:1: names SystemTime"),
    );
    check(
        "proxy/model/src/node.rs",
        "use std::time::{Duration, Instant};",
        Some("proxy/model/src/node.rs:1: names std::time"),
    );
    check(
        "xds-client/src/lib.rs",
        "use outrigger_model::any;",
        Some("xds-client/src/lib.rs:1: names outrigger_model"),
    );
}

#[test]
fn a_long_file_and_a_silent_file_are_found() {
    let check = |path: &str, text: &str, expected: usize| {
        let file = SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(
            shape_violations(&file).len(),
            expected,
            "{path}: {:?}",
            shape_violations(&file)
        );
    };
    check("proxy/src/net.rs", "//! Sockets.\nuse std::io;\n", 0);
    check("proxy/src/net.rs", "use std::io;\n", 1);
    check(
        "proxy/src/net.rs",
        &format!("//! Sockets.\n{}", "use x;\n".repeat(MAX_LINES)),
        1,
    );
    check(
        "proxy/src/lib.rs",
        "//! Root.\n#![forbid(unsafe_code)]\nmod net;\n",
        0,
    );
    check("proxy/src/lib.rs", "//! Root.\nmod net;\n", 1);
}

fn rust_files(folder: &str) -> Vec<SourceFile> {
    repo::texts(|path| path.starts_with(folder) && path.ends_with(".rs"))
}

fn layer_violations(file: &SourceFile) -> Vec<String> {
    let modules = module_path(&file.path);
    let own = own_module(&modules);
    let Some(own_row) = row(&own) else {
        return vec![format!(
            "{}:1: {own} has no place in the layer order; give it one in ROWS",
            file.path
        )];
    };
    let mut violations = Vec::new();
    for path in read_paths(file) {
        let what = match target(&path, &modules) {
            Target::Module(name) if own != "main" || row(&name).is_some() => match row(&name) {
                Some(other) if other <= own_row => continue,
                Some(_) => format!("{own} names {name}, which is to its right"),
                None => format!("{own} names {name}, which is no module of ROWS"),
            },
            Target::Root if own != "main" => format!("{own} names the root of the crate; name the module"),
            Target::Module(_) | Target::Root | Target::External | Target::Own => continue,
        };
        violations.push(format!(
            "{}:{}: {what} ({})",
            file.path,
            path.line,
            path.segments.join("::")
        ));
    }
    violations
}

fn home_violations(file: &SourceFile) -> Vec<String> {
    if !file.path.starts_with("proxy/src/") {
        return Vec::new();
    }
    let own = own_module(&module_path(&file.path));
    let foreign = |path: &NamedPath| {
        let library = path.segments.first()?;
        let home = HOMES
            .iter()
            .find(|home| home.libraries.contains(&library.as_str()))?;
        let named = path.segments.join("::");
        let allowed = home.modules.join(", ");
        (!home.modules.contains(&own.as_str())).then(|| {
            format!(
                "{}:{}: {own} names {named}; only {allowed} may: {}",
                file.path, path.line, home.reason
            )
        })
    };
    read_paths(file).iter().filter_map(foreign).collect()
}

fn ban_violations(file: &SourceFile) -> Vec<String> {
    let Some(ban) = BANS.iter().find(|ban| file.path.starts_with(ban.folder)) else {
        return Vec::new();
    };
    let is_banned = |path: &&NamedPath| {
        let begins = |banned: &&&str| {
            banned
                .split("::")
                .eq(path.segments.iter().take(banned.split("::").count()))
        };
        ban.paths.iter().any(|banned| begins(&banned))
    };
    let message = |path: &NamedPath| {
        format!(
            "{}:{}: names {}: {}",
            file.path,
            path.line,
            path.segments.join("::"),
            ban.reason
        )
    };
    read_paths(file).iter().filter(is_banned).map(message).collect()
}

fn shape_violations(file: &SourceFile) -> Vec<String> {
    let mut violations = Vec::new();
    let lines = file.text.lines().count();
    if lines > MAX_LINES {
        violations.push(format!("{}:{MAX_LINES}: {lines} lines; find the seam", file.path));
    }
    // A root that holds attributes only has nothing to describe yet.
    let first = file
        .text
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if first.is_some_and(|line| !line.starts_with("//!")) {
        violations.push(format!(
            "{}:1: begins without a `//!` line that says what the file owns",
            file.path
        ));
    }
    if file.path.ends_with("src/lib.rs") && !file.text.contains("#![forbid(unsafe_code)]") {
        violations.push(format!(
            "{}:1: a library begins with #![forbid(unsafe_code)]",
            file.path
        ));
    }
    violations
}

/// # Panics
/// The file is not Rust: nothing can be said about it, and silence would look like a pass.
fn read_paths(file: &SourceFile) -> Vec<NamedPath> {
    named_paths(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path))
}

/// `proxy/src/net/listen.rs` → `["net", "listen"]`; empty for the crate's roots.
fn module_path(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("proxy/src/").trim_end_matches(".rs");
    match inside {
        "lib" | "main" => Vec::new(),
        _ => inside.split('/').map(str::to_owned).collect(),
    }
}

/// The roots hold the program together, so they stand where `main` does.
fn own_module(modules: &[String]) -> String {
    modules.first().cloned().unwrap_or_else(|| "main".to_owned())
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}
