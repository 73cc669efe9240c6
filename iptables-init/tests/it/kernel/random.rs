//! Random flag sets in the kernel: what it reports is what was planned, and cleaning leaves nothing.
//!
//! Both sides become words in one order here, by rules of this file alone, so that a mistake in the program's own
//! reading cannot hide itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use iptables_init::dry_run;
use proptest::test_runner::{Config as Settings, TestCaseError, TestRunner};
use serde_json::Value;

use super::pods::Pods;
use crate::random::{FlagSet, good, name_servers};

/// Sets for each backend. The pure part of the test runs a thousand; here each costs some 100 ms. `SETS=1000` in the
/// environment tries as many.
const SETS: u32 = 25;

/// Rules of each chain, in order; each chain by table and name.
type Chains = BTreeMap<String, Vec<String>>;

fn check(backend: &[&str], reported: fn(&Pods) -> Chains) {
    let pods = Pods::new("dual");
    pods.name_servers(&name_servers());
    let sets = std::env::var("SETS").map_or(SETS, |sets| sets.parse().unwrap());
    let settings = Settings {
        cases: sets,
        failure_persistence: None,
        max_shrink_iters: 50,
        ..Settings::default()
    };
    let outcome = TestRunner::new(settings).run(&good(), |mut set| {
        set.line.extend(backend.iter().map(|flag| (*flag).to_owned()));
        check_set(&pods, &set, reported).map_err(TestCaseError::fail)
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn check_set(pods: &Pods, set: &FlagSet, reported: fn(&Pods) -> Chains) -> Result<(), String> {
    let addresses: [IpAddr; 2] = ["10.20.0.11", "fd00:20::11"].map(|address| address.parse().unwrap());
    let config = set.config(&addresses).map_err(|error| error.to_string())?;
    let run = |more: &[&str]| {
        let line: Vec<&str> = set
            .line
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let output = pods
            .program(&line)
            .envs(set.env.iter().cloned())
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(log)
    };
    run(&[])?;
    let (planned, found): (Chains, Chains) = (planned(&dry_run::text(&config)), reported(pods));
    if planned != found {
        let names = planned.keys().chain(found.keys());
        let name = names
            .into_iter()
            .find(|name| planned.get(*name) != found.get(*name))
            .unwrap();
        return Err(format!(
            "{name}: planned\n{:#?}\nfound\n{:#?}",
            planned.get(name),
            found.get(name)
        ));
    }
    assert!(found.len() > 4, "{found:?}");
    run(&["--cleanup-only"])?;
    match pods.saved() + &pods.routing() {
        residue if residue.is_empty() => Ok(()),
        residue => Err(format!("after --cleanup-only there is still\n{residue}")),
    }
}

/// The chains that the text of a dry run makes, with its insertions done.
fn planned(text: &str) -> Chains {
    let mut chains = Chains::new();
    let (mut family, mut table) = ("", "");
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["#", "iptables-restore", ..] => family = "ip",
            ["#", "ip6tables-restore", ..] => family = "ip6",
            ["*", name] => table = name,
            ["-N", chain] => drop(chains.entry(format!("{family} {table} {chain}")).or_default()),
            ["-A", chain, rule @ ..] => {
                chains
                    .entry(format!("{family} {table} {chain}"))
                    .or_default()
                    .push(xtables_words(rule));
            }
            ["-I", chain, position, rule @ ..] => {
                let chain = chains.entry(format!("{family} {table} {chain}")).or_default();
                chain.insert(position.parse::<usize>().unwrap() - 1, xtables_words(rule));
            }
            ["add", "chain", "inet", table, chain, ..] => {
                chains.entry(format!("{table} {chain}")).or_default();
            }
            ["add", "rule", "inet", table, chain, rule @ ..] => {
                chains
                    .entry(format!("{table} {chain}"))
                    .or_default()
                    .push(nft_words(rule));
            }
            _ => {}
        }
    }
    chains
}

/// What `iptables -S` of `variant` shows: all chains that hold something or are ours.
fn xtables(pods: &Pods, variant: &str) -> Chains {
    let mut chains = Chains::new();
    for (family, program) in [("ip", "iptables"), ("ip6", "ip6tables")] {
        for table in ["mangle", "nat", "raw", "filter"] {
            let text = pods.output(&format!("{program}-{variant}"), &["-t", table, "-S"]);
            for line in text.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                match words.as_slice() {
                    ["-N", chain] => drop(chains.entry(format!("{family} {table} {chain}")).or_default()),
                    ["-A", chain, rule @ ..] => {
                        let chain = chains.entry(format!("{family} {table} {chain}")).or_default();
                        chain.push(xtables_words(rule));
                    }
                    _ => {}
                }
            }
        }
    }
    chains
}

/// Options in alphabetical order, each with its value; modules only where an option means nothing without.
fn xtables_words(rule: &[&str]) -> String {
    let (mut options, mut module, mut not) = (Vec::new(), "", "");
    let mut words = rule.iter().copied().peekable();
    while let Some(word) = words.next() {
        match word {
            "!" => not = "! ",
            "-m" => module = words.next().unwrap(),
            // Defaults that are shown, and full masks.
            "--nfmask" | "--ctmask" | "--on-ip" => drop(words.next()),
            "--save-mark" | "--restore-mark" => options.push(word.to_owned()),
            _ => {
                let value = plain(words.next().unwrap());
                let option = match word {
                    "--to-port" => "--to-ports",
                    "--set-xmark" => "--set-mark",
                    "--mark" if module == "connmark" => "connmark",
                    word => word,
                };
                let everything = matches!(value.as_str(), "0.0.0.0/0" | "::/0") && not.is_empty();
                if !everything {
                    options.push(format!("{not}{option} {value}"));
                }
                not = "";
            }
        }
    }
    options.sort_unstable();
    options.join(" ")
}

/// Decimal numbers, whole networks, sorted lists.
fn plain(value: &str) -> String {
    let value = value.trim_end_matches("/0xffffffff").trim_matches('"');
    if let Some(hex) = value.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).unwrap().to_string();
    }
    if let Ok(net) = value.parse::<IpNet>() {
        return net.trunc().to_string();
    }
    let mut items: Vec<&str> = value.split(',').collect();
    items.sort_unstable();
    items.join(",")
}

/// Statements of a native rule, in order.
fn nft_words(rule: &[&str]) -> String {
    let mut statements = Vec::new();
    let mut words = rule.iter().copied().peekable();
    while let Some(word) = words.next() {
        let mut key = match word {
            "counter" => continue,
            "return" | "accept" | "drop" => {
                statements.push(word.to_owned());
                continue;
            }
            "jump" => {
                statements.push(format!("jump {}", words.next().unwrap()));
                continue;
            }
            "redirect" => {
                words.next();
                statements.push(format!("redirect {}", words.next().unwrap()));
                continue;
            }
            "tproxy" => {
                let family = words.next().unwrap();
                words.next();
                statements.push(format!("tproxy {family} {}", words.next().unwrap()));
                continue;
            }
            "iifname" | "oifname" => format!("meta {word}"),
            word => format!("{word} {}", words.next().unwrap()),
        };
        let operator = match words.peek() {
            Some(&"!=") => words.next().unwrap(),
            Some(&"set") => {
                words.next();
                "="
            }
            _ => "==",
        };
        key.push_str(&format!(" {operator} "));
        let value = plain(words.next().unwrap());
        let value = match value.as_str() {
            "ct" | "meta" => format!("{value} {}", words.next().unwrap()),
            _ => value,
        };
        statements.push(key + &value);
    }
    statements.join("; ")
}

/// What `nft -j list ruleset` shows of our tables.
fn native(pods: &Pods) -> Chains {
    let json: Value = serde_json::from_str(&pods.output("nft", &["-j", "list", "ruleset", "inet"])).unwrap();
    let mut chains = Chains::new();
    for item in json["nftables"].as_array().unwrap() {
        if let Some(chain) = item.get("chain") {
            chains
                .entry(format!("{} {}", text(&chain["table"]), text(&chain["name"])))
                .or_default();
        }
        if let Some(rule) = item.get("rule") {
            let statements = rule["expr"].as_array().unwrap().iter().filter_map(statement);
            let name = format!("{} {}", text(&rule["table"]), text(&rule["chain"]));
            chains
                .entry(name)
                .or_default()
                .push(statements.collect::<Vec<_>>().join("; "));
        }
    }
    chains
}

fn statement(json: &Value) -> Option<String> {
    let (name, value) = json.as_object().unwrap().iter().next().unwrap();
    Some(match name.as_str() {
        "counter" => return None,
        "match" => {
            let operator = if value["op"] == "in" {
                "=="
            } else {
                value["op"].as_str().unwrap()
            };
            format!(
                "{} {operator} {}",
                expression(&value["left"]),
                expression(&value["right"])
            )
        }
        "mangle" => format!("{} = {}", expression(&value["key"]), expression(&value["value"])),
        "jump" => format!("jump {}", text(&value["target"])),
        "redirect" => format!("redirect :{}", value["port"]),
        "tproxy" => format!("tproxy {} :{}", text(&value["family"]), value["port"]),
        verdict => verdict.to_owned(),
    })
}

fn expression(json: &Value) -> String {
    match json {
        Value::String(text) => match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address).to_string(),
            Err(_) => plain(text),
        },
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(expression).collect();
            plain(&items.join(","))
        }
        Value::Object(fields) => {
            let (name, value) = fields.iter().next().unwrap();
            match name.as_str() {
                "prefix" => format!("{}/{}", text(&value["addr"]), value["len"]),
                "payload" => format!("{} {}", text(&value["protocol"]), text(&value["field"])),
                _ => format!("{name} {}", text(&value["key"])),
            }
        }
        other => other.to_string(),
    }
}

fn text(json: &Value) -> String {
    json.as_str().unwrap().to_owned()
}

#[test]
fn iptables_reports_what_was_planned_with_nft_programs() {
    check(&["--force-iptables-binary=nft"], |pods| xtables(pods, "nft"));
}

#[test]
fn iptables_reports_what_was_planned_with_legacy_programs() {
    check(&["--force-iptables-binary=legacy"], |pods| {
        xtables(pods, "legacy")
    });
}

#[test]
fn nft_reports_what_was_planned_in_native_tables() {
    check(&["--native-nftables"], native);
}
