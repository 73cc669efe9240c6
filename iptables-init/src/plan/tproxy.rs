//! Step 18: marks that TPROXY mode needs beyond the inbound chains.
//!
//! The proxy connects to the app from the client's own address, so the app's answers must find back to the
//! proxy: the mark on the proxy's packets becomes the connection's, and returns onto the answers, which a
//! routing rule then sends to lo.

use super::matches::{destination, in_interface, not, out_interface, protocol, source};
use super::{LO, Owner, Plan, inbound_source};
use crate::config::Mode;
use crate::rule::{Chain, Family, Match, Place, Protocol, Rule, Table, Target, Test};

/// On what the proxy sends over lo to an address of the pod: it is to be captured as inbound.
pub const OUTBOUND_MARK: u32 = 1338;

impl Plan<'_> {
    pub(super) fn tproxy_marks(&mut self) {
        let Mode::Tproxy(tproxy) = self.config.mode else {
            return;
        };
        let mark = tproxy.mark;
        let tcp = || protocol(Protocol::Tcp);
        self.append(
            Table::Mangle,
            Chain::Prerouting,
            vec![tcp(), marked(mark)],
            Target::SaveMark,
        );
        let captured = vec![tcp(), out_interface(LO), marked(mark)];
        self.append(Table::Mangle, Chain::Output, captured, Target::Return);
        let config = self.config;
        let users = config.proxy_uids.iter().map(Owner::User);
        for owner in users.chain(config.proxy_gids.iter().map(Owner::Group)) {
            for family in self.families {
                let elsewhere = not(destination(self.loopback(*family)));
                let matches = vec![elsewhere, tcp(), out_interface(LO), owner.is()];
                let target = Target::SetMark(OUTBOUND_MARK);
                self.add(Some(*family), Table::Mangle, Chain::Output, matches, target);
            }
        }
        let of_proxy = vec![tcp(), Test::ConnectionMark(mark).into()];
        self.append(Table::Mangle, Chain::Output, of_proxy, Target::RestoreMark);
        self.leave_alone(1, None, vec![tcp(), marked(mark)]);
        for family in self.families {
            let to_app = vec![tcp(), source(inbound_source(*family)), in_interface(LO)];
            self.leave_alone(2, Some(*family), to_app);
        }
        self.leave_alone(3, None, vec![tcp(), in_interface(LO), not(marked(OUTBOUND_MARK))]);
    }

    /// A rule at the head of mangle ISTIO_INBOUND.
    fn leave_alone(&mut self, position: usize, family: Option<Family>, matches: Vec<Match>) {
        self.rules.push(Rule {
            family,
            table: Table::Mangle,
            chain: Chain::IstioInbound,
            place: Place::At(position),
            matches,
            target: Target::Return,
        });
    }
}

fn marked(mark: u32) -> Match {
    Test::Mark(mark).into()
}
