//! What would be done, as text: commands as comments before the text they would be fed. Pure.

use std::fmt::Write as _;

use crate::config::{Config, Method};
use crate::rule::{Family, of_family};
use crate::{nft, plan, restore, routing};

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
    for item in routing::items(config) {
        let _ = writeln!(text, "# {}", item.command("add"));
    }
    text
}
