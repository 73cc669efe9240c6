//! What would be done, as text: commands as comments before the text they would be fed. Pure.

use std::fmt::Write as _;

use crate::config::{Config, Method, Mode};
use crate::loopback::INBOUND_SOURCE;
use crate::rule::{Family, of_family};
use crate::{nft, plan, restore};

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
        Method::Nftables => {
            text.push_str("# nft -f -\n");
            text.push_str(&nft::render(&plan::native(config)));
        }
    }
    commands(config, &mut text);
    text
}

/// What is asked of the kernel directly, in the words of ip(8).
fn commands(config: &Config, text: &mut String) {
    if config.ipv6 {
        let _ = writeln!(text, "# ip -6 addr add {INBOUND_SOURCE}/128 dev lo");
    }
    let Mode::Tproxy(tproxy) = config.mode else { return };
    let (mark, table) = (tproxy.mark, tproxy.route_table);
    for (option, everything) in [("-4", "0.0.0.0/0"), ("-6", "::/0")] {
        if option == "-4" || config.ipv6 {
            let _ = writeln!(text, "# ip {option} rule add fwmark {mark} lookup {table}");
            let _ = writeln!(
                text,
                "# ip {option} route add local {everything} dev lo table {table}"
            );
        }
    }
}
