//! Flag sets with what is expected of them, one file each in `tests/golden`.
//!
//! Written by hand from the tables of Istio's rules, never by the program: nothing here can write them. A file has
//! the command line (`""` is an empty word), variables, the addresses of the pod (`v4`, `v6`, `dual`) and its name
//! servers; then connections and where they must end; then the text of `--dry-run`.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use iptables_init::config::{Config, Host};
use iptables_init::flags;

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) flags: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Which addresses the pod has.
    pub(crate) host: String,
    pub(crate) dns_servers: Vec<IpAddr>,
    pub(crate) probes: Vec<String>,
    pub(crate) text: String,
}

/// All of them, by name.
pub(crate) fn all() -> Vec<Case> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<Case> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            Case::read(name, &fs::read_to_string(path).unwrap())
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

impl Case {
    fn read(name: String, file: &str) -> Self {
        let mut parts = file.splitn(3, "\n\n");
        let head: Vec<&str> = parts.next().unwrap().lines().collect();
        let values = |key: &'static str| head.iter().filter_map(move |line| line.strip_prefix(key));
        let value = |key| values(key).next().unwrap_or_default().to_owned();
        let word = |word: &str| {
            if word == "\"\"" {
                String::new()
            } else {
                word.to_owned()
            }
        };
        Case {
            flags: value("flags: ").split_whitespace().map(word).collect(),
            env: values("env: ")
                .map(|line| line.split_once('=').unwrap())
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            host: value("host: "),
            dns_servers: value("dns: ")
                .split(',')
                .filter(|server| !server.is_empty())
                .map(|server| server.parse().unwrap())
                .collect(),
            probes: parts.next().unwrap().lines().map(str::to_owned).collect(),
            text: parts.next().unwrap().to_owned(),
            name,
        }
    }

    /// As the program would have it in that pod, without touching anything.
    pub(crate) fn config(&self) -> Config {
        let words = std::iter::once("iptables-init").chain(self.flags.iter().map(String::as_str));
        let flags = flags::parse(words.map(OsString::from)).unwrap();
        let lookup = |name: &str| {
            let found = self.env.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let addresses: &[&str] = match self.host.as_str() {
            "v4" => &[
                "127.0.0.1",
                "10.20.0.11",
                "10.21.0.11",
                "10.29.0.11",
                "::1",
                "fe80::1",
            ],
            "v6" => &["127.0.0.1", "::1", "fd00:20::11", "fd00:21::11"],
            "dual" => &["127.0.0.1", "10.20.0.11", "10.21.0.11", "::1", "fd00:20::11"],
            other => panic!("{}: {other}: neither v4, v6 nor dual", self.name),
        };
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let host = Host {
            env: &lookup,
            uid_of: &|_| None,
            // Debian's base-passwd has this group.
            gid_of: &|name| (name == "games").then_some(60),
            addresses: &addresses,
            dns_servers: &self.dns_servers,
        };
        Config::new(&flags, &host).unwrap()
    }
}
