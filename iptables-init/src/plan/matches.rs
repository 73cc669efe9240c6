//! Short names for matches.

use ipnet::IpNet;

use crate::rule::{Match, Protocol, Test};

impl From<Test> for Match {
    fn from(test: Test) -> Self {
        Match { test, negated: false }
    }
}

/// The opposite.
pub(super) fn not(mut this: Match) -> Match {
    this.negated = !this.negated;
    this
}

pub(super) fn in_interface(name: &str) -> Match {
    Test::InInterface(name.to_owned()).into()
}

pub(super) fn out_interface(name: &str) -> Match {
    Test::OutInterface(name.to_owned()).into()
}

pub(super) fn source(net: IpNet) -> Match {
    Test::Source(net).into()
}

pub(super) fn destination(net: IpNet) -> Match {
    Test::Destination(net).into()
}

pub(super) fn protocol(protocol: Protocol) -> Match {
    Test::Protocol(protocol).into()
}

pub(super) fn destination_port(port: u16) -> Match {
    Test::DestinationPort(port).into()
}

/// TCP, and `port` of it.
pub(super) fn tcp(port: Match) -> Vec<Match> {
    vec![protocol(Protocol::Tcp), port]
}
