//! Step 6: connections that come in.

use super::Plan;
use super::matches::{destination, destination_port, not, protocol, tcp};
use crate::config::{Inbound, Mode};
use crate::rule::{Chain, Match, Protocol, Table, Target, Test, TrackedState};

impl Plan<'_> {
    pub(super) fn inbound(&mut self) {
        let config = self.config;
        if config.inbound == Inbound::Nothing {
            return;
        }
        let table = match config.mode {
            Mode::Redirect => Table::Nat,
            Mode::Tproxy(_) => Table::Mangle,
        };
        self.divert_chains();
        self.append(
            table,
            Chain::Prerouting,
            vec![protocol(Protocol::Tcp)],
            Target::Jump(Chain::IstioInbound),
        );
        match &config.inbound {
            Inbound::Nothing => {}
            Inbound::AllExcept(excluded) => {
                for port in excluded {
                    self.append(
                        table,
                        Chain::IstioInbound,
                        tcp(destination_port(port.get())),
                        Target::Return,
                    );
                }
                self.capture(vec![protocol(Protocol::Tcp)]);
            }
            Inbound::Only(ports) => {
                for port in ports {
                    self.capture(tcp(destination_port(port.get())));
                }
            }
        }
    }

    /// TPROXY: packets of connections that the proxy has already are routed to lo by their mark, the first
    /// packet of any other is handed to the proxy's listener.
    fn divert_chains(&mut self) {
        let Mode::Tproxy(tproxy) = self.config.mode else {
            return;
        };
        let mark = tproxy.mark;
        self.append(Table::Mangle, Chain::IstioDivert, vec![], Target::SetMark(mark));
        self.append(Table::Mangle, Chain::IstioDivert, vec![], Target::Accept);
        for family in self.families {
            let matches = vec![not(destination(self.loopback(*family))), protocol(Protocol::Tcp)];
            let target = Target::Tproxy {
                port: self.config.inbound_port,
                mark,
            };
            self.add(Some(*family), Table::Mangle, Chain::IstioTproxy, matches, target);
        }
    }

    /// Hands what passes `matches` to the proxy.
    fn capture(&mut self, matches: Vec<Match>) {
        match self.config.mode {
            Mode::Redirect => {
                self.append(
                    Table::Nat,
                    Chain::IstioInbound,
                    matches,
                    Target::Jump(Chain::IstioInRedirect),
                );
            }
            Mode::Tproxy(_) => {
                let known = Test::Tracked(vec![TrackedState::Related, TrackedState::Established]);
                let mut of_known = matches.clone();
                of_known.push(known.into());
                let chain = Chain::IstioInbound;
                self.append(Table::Mangle, chain, of_known, Target::Jump(Chain::IstioDivert));
                self.append(Table::Mangle, chain, matches, Target::Jump(Chain::IstioTproxy));
            }
        }
    }
}
