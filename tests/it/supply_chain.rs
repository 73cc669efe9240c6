//! Checks the dependency tree against deny.toml: bans, minimum versions, licences and sources.
//!
//! What `cargo deny check bans licenses sources` checks, without installing it and without a database. Reads the same
//! file, and refuses keys that it does not understand. Advisories need network and stay with `cargo deny`.

use std::collections::BTreeSet;
use std::process::Command;

use cargo_metadata::semver::{Version, VersionReq};
use cargo_metadata::{Metadata, MetadataCommand, Package};
use serde::Deserialize;

use crate::repo;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    graph: Graph,
    /// For `cargo deny` alone.
    #[serde(rename = "advisories")]
    _advisories: toml::Table,
    bans: Bans,
    licenses: Licenses,
    sources: Sources,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    targets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    /// `warn`: two versions of a small crate are a nuisance; where they would be a fault, `deny` names the old one.
    #[serde(rename = "multiple-versions")]
    _multiple_versions: Warn,
    #[serde(rename = "wildcards")]
    _wildcards: Deny,
    #[serde(rename = "allow-wildcard-paths")]
    _allow_wildcard_paths: bool,
    deny: Vec<DeniedCrate>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeniedCrate {
    /// `name`, or `name:requirement` for some versions only.
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    #[serde(rename = "unknown-registry")]
    _unknown_registry: Deny,
    #[serde(rename = "unknown-git")]
    _unknown_git: Deny,
    allow_registry: Vec<String>,
    allow_git: Vec<String>,
}

/// The one level that the checks below implement.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Deny {
    Deny,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Warn {
    Warn,
}

#[test]
fn dependencies_follow_deny_toml() {
    let rules = rules();
    let mut violations = Vec::new();
    for target in &rules.graph.targets {
        let metadata = metadata(target);
        for package in compiled(&metadata, target) {
            let mut found = ban_violations(&rules.bans, package.name.as_str(), &package.version);
            found.extend(licence_violation(
                &rules.licenses.allow,
                package.license.as_deref(),
            ));
            found.extend(source_violation(
                &rules.sources,
                package.source.as_ref().map(|source| source.repr.as_str()),
            ));
            violations.extend(
                found
                    .into_iter()
                    .map(|what| format!("{} {}: {what}", package.name, package.version)),
            );
        }
        violations.extend(
            metadata
                .workspace_packages()
                .into_iter()
                .flat_map(wildcard_violations),
        );
    }
    violations.sort();
    violations.dedup();
    repo::assert_none(&violations, "deny.toml");
}

#[test]
fn a_denied_crate_is_found_by_name_or_by_version() {
    let bans = rules().bans;
    let check = |name: &str, version: &str, denied: bool| {
        let version = Version::parse(version).expect("written here");
        assert_eq!(
            !ban_violations(&bans, name, &version).is_empty(),
            denied,
            "{name} {version}"
        );
    };
    check("h2", "0.4.15", true);
    check("h2", "0.4.16", false);
    check("openssl-sys", "0.9.100", true);
    check("openssl-sys-x", "0.9.100", false);
}

#[test]
fn licence_expressions_are_read_as_spdx() {
    let check = |expression: Option<&str>, allowed: bool| {
        let allow = [
            "MIT",
            "Apache-2.0",
            "Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ]
        .map(str::to_owned);
        assert_eq!(
            licence_violation(&allow, expression).is_none(),
            allowed,
            "{expression:?}"
        );
    };
    check(Some("MIT"), true);
    check(Some("GPL-3.0-only OR MIT"), true);
    check(Some("GPL-3.0-only/MIT"), true);
    check(Some("MIT AND GPL-3.0-only"), false);
    check(Some("(MIT OR Apache-2.0) AND Unicode-3.0"), true);
    check(Some("MIT OR Apache-2.0 AND GPL-3.0-only"), true);
    check(Some("(MIT OR Apache-2.0) AND GPL-3.0-only"), false);
    check(Some("Apache-2.0 WITH LLVM-exception"), true);
    check(Some("MIT WITH LLVM-exception"), false);
    check(Some("(MIT"), false);
    check(None, false);
}

#[test]
fn a_source_outside_the_list_is_found() {
    let sources = rules().sources;
    let listed = sources.allow_registry.first().expect("one registry is listed");
    assert_eq!(
        source_violation(&sources, Some(&format!("registry+{listed}"))),
        None
    );
    assert_eq!(source_violation(&sources, None), None);
    assert!(source_violation(&sources, Some("registry+https://example.com/index")).is_some());
    assert!(source_violation(&sources, Some("git+https://example.com/x?rev=1#1")).is_some());
}

fn rules() -> Rules {
    let text = std::fs::read_to_string(repo::root().join("deny.toml")).expect("deny.toml lies in the root");
    toml::from_str(&text).unwrap_or_else(|error| panic!("deny.toml: {error}"))
}

fn metadata(target: &str) -> Metadata {
    MetadataCommand::new()
        .manifest_path(repo::root().join("Cargo.toml"))
        .other_options(["--locked".to_owned(), format!("--filter-platform={target}")])
        .exec()
        .unwrap_or_else(|error| panic!("cargo metadata --locked for {target}: {error}"))
}

/// What is compiled for the target, with build and dev dependencies; the rest of the lock file is other platforms'.
fn compiled<'a>(metadata: &'a Metadata, target: &str) -> impl Iterator<Item = &'a Package> {
    let names = compiled_names(target);
    metadata
        .packages
        .iter()
        .filter(move |package| names.contains(&format!("{} v{}", package.name, package.version)))
}

/// `name vVERSION` of every package in the tree. The graph of `cargo metadata` will not do: it lists an optional
/// dependency as soon as a weak feature (`ring?/std`) names it, although nothing compiles it.
fn compiled_names(target: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--edges=normal,build,dev",
            "--prefix=none",
            "--format={p}",
        ])
        .arg(format!("--target={target}"))
        .current_dir(repo::root())
        .output()
        .expect("the cargo that built this test is still there");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    // `name vVERSION`, then where it comes from, or `(*)` for a repetition.
    let text = String::from_utf8_lossy(&output.stdout);
    let name = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let names: BTreeSet<String> = text.lines().map(name).collect();
    assert!(
        names.iter().any(|name| name.starts_with("e2e v")),
        "cargo tree does not list this package:\n{text}"
    );
    names
}

fn ban_violations(bans: &Bans, name: &str, version: &Version) -> Vec<String> {
    let denies = |denied: &&DeniedCrate| match denied.spec.split_once(':') {
        None => denied.spec == name,
        Some((banned, requirement)) => {
            let requirement = VersionReq::parse(requirement);
            banned == name
                && requirement
                    .unwrap_or_else(|e| panic!("{}: {e}", denied.spec))
                    .matches(version)
        }
    };
    bans.deny
        .iter()
        .filter(denies)
        .map(|denied| format!("denied as {}: {}", denied.spec, denied.reason))
        .collect()
}

fn wildcard_violations(package: &Package) -> Vec<String> {
    let is_wild = |req: &VersionReq| *req == VersionReq::STAR;
    let wild = package
        .dependencies
        .iter()
        .filter(|dependency| is_wild(&dependency.req) && dependency.path.is_none());
    wild.map(|dependency| format!("{}: {} = \"*\" takes any version", package.name, dependency.name))
        .collect()
}

fn source_violation(sources: &Sources, source: Option<&str>) -> Option<String> {
    // No source: a folder of this workspace.
    let source = source?;
    let known = match source.split_once('+') {
        Some(("registry" | "sparse", index)) => sources.allow_registry.iter().any(|allowed| allowed == index),
        Some(("git", url)) => {
            let repository = url.split(['?', '#']).next().unwrap_or(url);
            sources.allow_git.iter().any(|allowed| allowed == repository)
        }
        _ => false,
    };
    (!known).then(|| format!("comes from {source}, which [sources] does not list"))
}

fn licence_violation(allow: &[String], expression: Option<&str>) -> Option<String> {
    let Some(expression) = expression else {
        return Some("has no licence expression".to_owned());
    };
    // `/` is the old way to write OR.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    match any_of(&mut rest, allow) {
        Some(true) if rest.is_empty() => None,
        Some(false) if rest.is_empty() => Some(format!("licence {expression} is not allowed")),
        _ => Some(format!("licence {expression} is no SPDX expression")),
    }
}

/// `x OR y`, where AND binds tighter. `None`: not an expression.
fn any_of(words: &mut &[&str], allow: &[String]) -> Option<bool> {
    let mut allowed = all_of(words, allow)?;
    while take(words, "OR") {
        allowed |= all_of(words, allow)?;
    }
    Some(allowed)
}

fn all_of(words: &mut &[&str], allow: &[String]) -> Option<bool> {
    let mut allowed = one(words, allow)?;
    while take(words, "AND") {
        allowed &= one(words, allow)?;
    }
    Some(allowed)
}

fn one(words: &mut &[&str], allow: &[String]) -> Option<bool> {
    if take(words, "(") {
        let allowed = any_of(words, allow)?;
        return take(words, ")").then_some(allowed);
    }
    let (licence, rest) = words.split_first()?;
    *words = rest;
    let full = if take(words, "WITH") {
        let (exception, rest) = words.split_first()?;
        *words = rest;
        format!("{licence} WITH {exception}")
    } else {
        (*licence).to_owned()
    };
    Some(allow.contains(&full))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    match words.split_first() {
        Some((first, rest)) if *first == word => {
            *words = rest;
            true
        }
        _ => false,
    }
}
