//! TPROXY's policy routing: marked packets are local, whatever their destination.

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::message::{AF_INET, AF_INET6, Message, attribute};
use crate::rule::Family;

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FR_ACT_TO_TBL: u8 = 1;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
/// RTPROT_BOOT, which ip(8) uses too.
const BOOT: u8 = 3;
/// `struct fib_rule_hdr` and `struct rtmsg` have twelve bytes each.
const HEADER: usize = 12;

/// A routing rule: packets with exactly this mark are looked up in this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    pub family: Family,
    pub mark: u32,
    pub table: u32,
}

impl Lookup {
    /// Adds or removes the rule.
    ///
    /// # Errors
    /// EEXIST or ENOENT if that was so already. The kernel does not say the first: it gives each rule a priority of
    /// its own, so none is the same as another.
    pub(super) fn change(self, add: bool) -> Result<(), Errno> {
        if add && lookups(self.family)?.contains(&self) {
            return Err(Errno::EEXIST);
        }
        // family, lengths of destination and source, tos; table (in an attribute), two reserved, action; flags
        let header = [af(self.family), 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        let message = Message::new(if add { RTM_NEWRULE } else { RTM_DELRULE }, &header)
            .attribute(FRA_FWMARK, &self.mark.to_ne_bytes())
            .attribute(FRA_FWMASK, &u32::MAX.to_ne_bytes())
            .attribute(FRA_TABLE, &self.table.to_ne_bytes());
        if add { message.create() } else { message.ask() }
    }
}

/// Adds or removes `local default dev lo` in `table`.
pub(super) fn change_route(family: Family, table: u32, add: bool) -> Result<(), Errno> {
    let lo = if_nametoindex("lo")?;
    // family, lengths of destination and source, tos; table (in an attribute), protocol, scope, type; flags
    let header = [af(family), 0, 0, 0, 0, BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0];
    let message = Message::new(if add { RTM_NEWROUTE } else { RTM_DELROUTE }, &header)
        .attribute(RTA_OIF, &lo.to_ne_bytes())
        .attribute(RTA_TABLE, &table.to_ne_bytes());
    if add { message.create() } else { message.ask() }
}

/// All rules of `family` that look a fully masked mark up in a table. None where the kernel lacks the family.
pub(super) fn lookups(family: Family) -> Result<Vec<Lookup>, Errno> {
    let mut header = [0; HEADER];
    header[0] = af(family);
    let rules = match Message::new(RTM_GETRULE, &header).dump(RTM_NEWRULE) {
        Err(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        rules => rules?,
    };
    let lookup = |rule: &Vec<u8>| {
        let attributes = rule.get(HEADER..)?;
        let number = |kind| Some(u32::from_ne_bytes(attribute(attributes, kind)?.try_into().ok()?));
        let is_lookup = rule.get(7) == Some(&FR_ACT_TO_TBL) && number(FRA_FWMASK)? == u32::MAX;
        is_lookup.then_some(Lookup {
            family,
            mark: number(FRA_FWMARK)?,
            table: number(FRA_TABLE)?,
        })
    };
    Ok(rules.iter().filter_map(lookup).collect())
}

fn af(family: Family) -> u8 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}
