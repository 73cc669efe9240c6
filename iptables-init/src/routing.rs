//! What rules need of the network namespace besides: an address on lo, and TPROXY's routing.
//!
//! Speaks rtnetlink itself, so that a minimal image needs no `ip` program. Every step can be taken twice, and
//! says whether it changed something, so that it can be taken back. Source: Istio `tools/common/tproxy`;
//! rtnetlink(7), linux/fib_rules.h.

mod loopback;
mod message;
mod tproxy;

use nix::errno::Errno;

use crate::config::{Config, Mode};
use crate::rule::Family;
pub use loopback::INBOUND_SOURCE;
pub use tproxy::Lookup;

/// Something of the namespace that is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// `::6/128` on lo, which the proxy sends from towards the app.
    InboundSource,
    /// Packets with a mark are looked up in a table.
    Rule(Lookup),
    /// In that table everything is local.
    Route { family: Family, table: u32 },
}

/// The kernel does not let an item be added or removed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{command}: {source}; it takes CAP_NET_ADMIN, and for IPv6 that lo has it (net.ipv6.conf.lo.disable_ipv6=0)"
)]
pub struct RoutingError {
    command: String,
    source: Errno,
}

/// All that `config` needs, in the order in which it is to be added.
pub fn items(config: &Config) -> Vec<Item> {
    let mut items = Vec::new();
    if config.ipv6 {
        items.push(Item::InboundSource);
    }
    let Mode::Tproxy(tproxy) = config.mode else {
        return items;
    };
    for family in Family::BOTH {
        if family == Family::V4 || config.ipv6 {
            let (mark, table) = (tproxy.mark, tproxy.route_table);
            // The route first: packets that a rule sends into an empty table would go on to the next.
            items.push(Item::Route { family, table });
            items.push(Item::Rule(Lookup { family, mark, table }));
        }
    }
    items
}

/// Items that an earlier run added and `wanted` does not have: those of the TPROXY marks `marks`.
///
/// # Errors
/// The kernel's, to listing routing rules.
pub fn left_over(wanted: &[Item], marks: &[u32]) -> Result<Vec<Item>, Errno> {
    let mut items = Vec::new();
    if marks.is_empty() {
        return Ok(items);
    }
    for family in Family::BOTH {
        for lookup in tproxy::lookups(family)? {
            let (rule, table) = (Item::Rule(lookup), lookup.table);
            if marks.contains(&lookup.mark) && !wanted.contains(&rule) {
                items.push(rule);
                let route = Item::Route { family, table };
                if !wanted.contains(&route) && !items.contains(&route) {
                    items.push(route);
                }
            }
        }
    }
    Ok(items)
}

impl Item {
    /// Whether it was added: `false` if it was there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add(self) -> Result<bool, RoutingError> {
        self.act("add", Errno::EEXIST)
    }

    /// Whether it was removed: `false` if it was not there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(self) -> Result<bool, RoutingError> {
        self.act("del", Errno::ENOENT)
    }

    fn act(self, verb: &'static str, done: Errno) -> Result<bool, RoutingError> {
        let add = verb == "add";
        let outcome = match self {
            Item::InboundSource => loopback::change(add),
            Item::Rule(lookup) => lookup.change(add),
            Item::Route { family, table } => tproxy::change_route(family, table, add),
        };
        match outcome {
            Ok(()) => Ok(true),
            Err(errno) if errno == done => Ok(false),
            // What a kernel without IPv6, or an lo without the address or route, has not.
            Err(Errno::ESRCH | Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT) if !add => Ok(false),
            Err(source) => Err(RoutingError {
                command: self.command(verb),
                source,
            }),
        }
    }

    /// In the words of ip(8).
    pub fn command(self, verb: &str) -> String {
        match self {
            Item::InboundSource => format!("ip -6 addr {verb} {INBOUND_SOURCE}/128 dev lo"),
            Item::Rule(Lookup { family, mark, table }) => {
                format!("ip {} rule {verb} fwmark {mark} lookup {table}", option(family))
            }
            Item::Route { family, table } => {
                let everything = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
                format!(
                    "ip {} route {verb} local {everything} dev lo table {table}",
                    option(family)
                )
            }
        }
    }
}

fn option(family: Family) -> &'static str {
    if family == Family::V4 { "-4" } else { "-6" }
}
