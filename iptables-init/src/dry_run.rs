//! What would be done, as text: commands as comments before the text they would be fed. Pure.

use std::fmt::Write as _;

use crate::config::{Config, Method};
use crate::plan::NativeChain;
use crate::rule::{Family, Rule, chains, of_family};
use crate::{meaning, nft, plan, restore, routing};

/// What `--dry-run` prints.
pub fn text(config: &Config) -> String {
    let mut text = String::new();
    match config.method {
        Method::Iptables => {
            let rules = plan::rules(config);
            for (family, program) in [
                (Family::V4, "iptables-restore"),
                (Family::V6, "ip6tables-restore"),
            ] {
                if family == Family::V4 || config.ipv6 {
                    let _ = writeln!(text, "# {program} --noflush");
                    text.push_str(&restore::render(&of_family(&rules, family)));
                }
            }
        }
        method @ (Method::Nftables | Method::Netlink) => {
            text.push_str(match method {
                Method::Netlink => "# over netlink, in the words of nft -f -\n",
                _ => "# nft -f -\n",
            });
            text.push_str(&nft::render(&plan::native(config)));
        }
    }
    for item in routing::items(config) {
        let _ = writeln!(text, "# {}", item.command("add"));
    }
    text
}

/// Every rule with what it means beside it, each line a comment for whoever is fed the whole output.
pub fn table(config: &Config) -> String {
    let mut text = String::new();
    if config.method != Method::Iptables {
        for NativeChain { table, chain, rules } in plan::native(config) {
            let heading = format!("{}, chain {}", table.native_name(), chain.native_name());
            part(&mut text, &heading, &rules.iter().collect::<Vec<_>>(), nft::words);
        }
        return text;
    }
    let rules = plan::rules(config);
    for family in Family::BOTH {
        if family == Family::V6 && !config.ipv6 {
            continue;
        }
        let of_family = of_family(&rules, family);
        for ((table, chain), rules) in chains(&of_family) {
            let heading = format!("{family}, {} {}", table.name(), chain.name());
            part(&mut text, &heading, &rules, restore::words);
        }
    }
    text
}

fn part(text: &mut String, heading: &str, rules: &[&Rule], words: fn(&Rule) -> String) {
    let _ = writeln!(text, "#\n# {heading}");
    let width = rules
        .iter()
        .map(|rule| words(rule).len())
        .max()
        .unwrap_or_default();
    for (position, rule) in (1..).zip(rules) {
        let _ = writeln!(
            text,
            "# {position:>3}  {:<width$}  | {}",
            words(rule),
            meaning::of_rule(rule)
        );
    }
}
