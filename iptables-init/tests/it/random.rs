//! Random flag sets: good values, and good ones mixed with nonsense.

use std::ffi::OsString;
use std::net::IpAddr;

use iptables_init::config::{Config, ConfigError, Host};
use iptables_init::{dry_run, flags};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config as Settings, TestRunner};

/// A command line and variables.
#[derive(Clone, Debug)]
pub(crate) struct FlagSet {
    pub(crate) line: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
}

impl FlagSet {
    /// As the program would have it in a pod with these addresses and one name server of each family.
    pub(crate) fn config(&self, addresses: &[IpAddr]) -> Result<Config, ConfigError> {
        let words = std::iter::once("iptables-init").chain(self.line.iter().map(String::as_str));
        let flags =
            flags::parse(words.map(OsString::from)).unwrap_or_else(|error| panic!("{self:?}: {error}"));
        let lookup = |name: &str| {
            let found = self.env.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone())
        };
        let host = Host {
            env: &lookup,
            uid_of: &|_| None,
            gid_of: &|_| None,
            addresses,
            dns_servers: &name_servers(),
        };
        Config::new(&flags, &host)
    }
}

pub(crate) fn name_servers() -> [IpAddr; 2] {
    [[10, 96, 0, 10].into(), [0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10].into()]
}

fn list(item: impl Strategy<Value = String> + 'static, most: usize) -> BoxedStrategy<String> {
    prop::collection::vec(item, 1..=most)
        .prop_map(|items| items.join(","))
        .boxed()
}

fn port() -> BoxedStrategy<String> {
    (1..=u16::MAX).prop_map(|port| port.to_string()).boxed()
}

fn cidr() -> BoxedStrategy<String> {
    let v4 = (any::<[u8; 4]>(), 1u8..=32).prop_map(|(ip, length)| format!("{}/{length}", IpAddr::from(ip)));
    let v6 = (any::<[u8; 16]>(), 1u8..=128).prop_map(|(ip, length)| format!("{}/{length}", IpAddr::from(ip)));
    let loopback = select(vec!["127.0.0.2/32", "::1/128", "0.0.0.0/0", "::/0"]).prop_map(str::to_owned);
    prop_oneof![6 => v4, 3 => v6, 1 => loopback].boxed()
}

fn id() -> BoxedStrategy<String> {
    prop_oneof![
        Just("1337".to_owned()),
        (0..u32::MAX).prop_map(|id| id.to_string())
    ]
    .boxed()
}

fn or_all(list: BoxedStrategy<String>) -> BoxedStrategy<String> {
    prop_oneof![Just("*".to_owned()), list].boxed()
}

fn word(words: &[&'static str]) -> BoxedStrategy<String> {
    select(words.to_vec()).prop_map(str::to_owned).boxed()
}

/// Flags with good values; a flag without value is a switch.
fn good_flags() -> Vec<(&'static str, Option<BoxedStrategy<String>>)> {
    let interface = || word(&["eth0", "eth1", "eth9", "net.1@x", "tun+", "wg-0"]);
    vec![
        ("-p", Some(port())),
        ("-z", Some(port())),
        ("-e", Some(port())),
        ("-u", Some(list(id(), 3))),
        ("-g", Some(list(id(), 3))),
        ("-m", Some(word(&["REDIRECT", "TPROXY", "TPROXY"]))),
        ("-t", Some((1u32..1338).prop_map(|mark| mark.to_string()).boxed())),
        (
            "-r",
            Some((256u32..9999).prop_map(|table| table.to_string()).boxed()),
        ),
        ("-b", Some(or_all(list(port(), 4)))),
        ("-d", Some(list(port(), 4))),
        ("-i", Some(or_all(list(cidr(), 4)))),
        ("-x", Some(list(cidr(), 4))),
        ("-q", Some(list(port(), 4))),
        ("-o", Some(list(port(), 4))),
        ("-c", Some(list(interface(), 3))),
        ("-k", Some(list(interface(), 3))),
        ("--redirect-dns", None),
        ("--capture-all-dns", None),
        ("--drop-invalid", None),
        ("--dual-stack", None),
    ]
}

fn good_env() -> Vec<(&'static str, Option<BoxedStrategy<String>>)> {
    let loopback = word(&["127.0.0.1/32", "127.0.0.0/8", "127.1.2.3/16"]);
    vec![
        ("ISTIO_OUTBOUND_OWNER_GROUPS", Some(or_all(list(id(), 5)))),
        ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", Some(list(id(), 5))),
        ("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", Some(loopback)),
        ("INVALID_DROP", Some(word(&["true", "false", "1"]))),
    ]
}

/// Each of `flags` or not, with one of its values.
fn some_of(
    flags: Vec<(&'static str, Option<BoxedStrategy<String>>)>,
) -> BoxedStrategy<Vec<(String, Option<String>)>> {
    let each = flags.into_iter().map(|(name, value)| {
        let value = match value {
            Some(value) => value.prop_map(Some).boxed(),
            None => Just(None).boxed(),
        };
        prop::option::weighted(0.4, value).prop_map(move |value| value.map(|value| (name.to_owned(), value)))
    });
    let each: Vec<_> = each.collect();
    each.prop_map(|flags| flags.into_iter().flatten().collect())
        .boxed()
}

/// What a pod may be given.
pub(crate) fn good() -> impl Strategy<Value = FlagSet> {
    (some_of(good_flags()), some_of(good_env())).prop_map(|(flags, env)| FlagSet {
        line: flags
            .into_iter()
            .map(|(name, value)| value.map_or(name.clone(), |value| format!("{name}={value}")))
            .collect(),
        env: env
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
    })
}

/// The same with one value replaced by anything.
fn with_nonsense() -> impl Strategy<Value = FlagSet> {
    let nonsense = prop_oneof![
        any::<String>(),
        word(&[
            "70000",
            "0",
            "-1",
            "80, 81",
            "10.0.0.0/33",
            "1.2.3",
            ",",
            "*,80",
            "!",
            "-j DROP",
            "a b",
            "4294967295"
        ]),
    ];
    (good(), any::<prop::sample::Index>(), nonsense).prop_map(|(mut set, index, nonsense)| {
        // A NUL is no part of any argument or variable.
        let nonsense = nonsense.replace('\0', "");
        let values = set.line.len() + set.env.len();
        if values > 0 {
            let index = index.index(values);
            match set.line.get_mut(index) {
                Some(flag) => *flag = format!("{}={nonsense}", flag.split('=').next().unwrap_or_default()),
                None => set.env[index - set.line.len()].1 = nonsense,
            }
        }
        set
    })
}

fn check(strategy: impl Strategy<Value = FlagSet>, good: bool) {
    let addresses: [IpAddr; 2] = [[10, 20, 0, 11].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()];
    let settings = Settings {
        cases: 1000,
        failure_persistence: None,
        ..Settings::default()
    };
    let outcome = TestRunner::new(settings).run(&strategy, |set| {
        for native in ["--native-nftables=false", "--native-nftables"] {
            let mut set = set.clone();
            set.line.push(native.to_owned());
            match set.config(&addresses) {
                Ok(config) => {
                    let text = dry_run::text(&config);
                    prop_assert!(text.contains("15008") || text.contains("dport"), "{}", text);
                    // Every line is one command: nothing of a value can begin another.
                    let known = ["-", "*", "#", "add ", "delete ", "COMMIT"];
                    let odd = text
                        .lines()
                        .find(|line| !known.iter().any(|start| line.starts_with(start)));
                    prop_assert_eq!(odd, None);
                }
                Err(error) => {
                    prop_assert!(!good, "{}", error);
                    prop_assert_eq!(error.to_string().lines().count(), 1);
                }
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn good_values_in_any_combination_make_rules() {
    check(good(), true);
}

#[test]
fn nonsense_is_refused_in_one_line_and_never_ends_up_as_a_command() {
    check(with_nonsense(), false);
}
