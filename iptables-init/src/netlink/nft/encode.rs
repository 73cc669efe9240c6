//! A planned rule as expressions of nf_tables. Pure.
//!
//! The same parts in the same order as `nft -f` makes of [`crate::nft`]'s text: what either wrote, `nft list`
//! shows alike. In a table of both families an address asks for its family first, and a port for its protocol.

use ipnet::IpNet;

use super::expression::{Expression, Header, Meta, Tracked};
use crate::rule::{Family, Match, Rule, Target, Test, TrackedState};

/// IFNAMSIZ: interface names are compared whole, with zeroes behind them.
const NAME_BYTES: usize = 16;
/// NFPROTO_IPV4 and NFPROTO_IPV6.
const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// The rules that together do what `rule` does: one, but for a list of ports of which any may match, which
/// becomes a rule a port.
pub(crate) fn rules(rule: &Rule) -> Vec<Vec<Expression>> {
    let any_of = rule
        .matches
        .iter()
        .position(|one| matches!(&one.test, Test::DestinationPorts(_)) && !one.negated);
    let Some((at, Test::DestinationPorts(ports))) =
        any_of.and_then(|at| Some((at, &rule.matches.get(at)?.test)))
    else {
        return vec![expressions(rule)];
    };
    let one_port = |port: &u16| {
        let mut rule = rule.clone();
        if let Some(one) = rule.matches.get_mut(at) {
            one.test = Test::DestinationPort(*port);
        }
        expressions(&rule)
    };
    ports.iter().map(one_port).collect()
}

/// Matches, a counter, and what is done.
fn expressions(rule: &Rule) -> Vec<Expression> {
    let mut encoder = Encoder {
        rule,
        expressions: Vec::new(),
        family_is_known: false,
        protocol_is_known: false,
    };
    for one in &rule.matches {
        encoder.one(one);
    }
    encoder.put([Expression::Counter]);
    encoder.target();
    encoder.expressions
}

struct Encoder<'a> {
    rule: &'a Rule,
    expressions: Vec<Expression>,
    family_is_known: bool,
    protocol_is_known: bool,
}

impl Encoder<'_> {
    fn put(&mut self, expressions: impl IntoIterator<Item = Expression>) {
        self.expressions.extend(expressions);
    }

    fn one(&mut self, one: &Match) {
        let compare = |value: Vec<u8>| {
            if one.negated {
                Expression::Unequal(value)
            } else {
                Expression::Equal(value)
            }
        };
        match &one.test {
            Test::Family(family) => {
                self.family_is_known |= !one.negated;
                self.put([
                    Expression::Meta(Meta::Family),
                    compare(vec![family_number(*family)]),
                ]);
            }
            Test::InInterface(name) => {
                self.put([Expression::Meta(Meta::InInterface), compare(interface(name))])
            }
            Test::OutInterface(name) => {
                self.put([Expression::Meta(Meta::OutInterface), compare(interface(name))])
            }
            Test::Source(net) => self.address(net, one.negated, (12, 8)),
            Test::Destination(net) => self.address(net, one.negated, (16, 24)),
            Test::Protocol(protocol) => {
                if !self.protocol_is_known || one.negated {
                    self.protocol_is_known |= !one.negated;
                    self.put([Expression::Meta(Meta::Protocol), compare(vec![protocol.number()])]);
                }
            }
            Test::SourcePort(port) => self.port(0, *port, one.negated),
            Test::DestinationPort(port) => self.port(2, *port, one.negated),
            Test::DestinationPorts(ports) => {
                for port in ports {
                    self.port(2, *port, one.negated);
                }
            }
            Test::Uid(id) => self.put([Expression::Meta(Meta::Uid), compare(number(id.number))]),
            Test::Gid(id) => self.put([Expression::Meta(Meta::Gid), compare(number(id.number))]),
            Test::Mark(mark) => self.put([Expression::Meta(Meta::Mark), compare(number(*mark))]),
            Test::ConnectionMark(mark) => {
                self.put([Expression::Tracked(Tracked::Mark), compare(number(*mark))])
            }
            Test::Tracked(states) => {
                let bits = states.iter().fold(0, |bits, state| bits | state_bit(*state));
                // Any of the bits is left.
                let left = if one.negated {
                    Expression::Equal
                } else {
                    Expression::Unequal
                };
                self.put([
                    Expression::Tracked(Tracked::State),
                    Expression::Mask(number(bits)),
                    left(number(0)),
                ]);
            }
        }
    }

    /// `offsets` in the IPv4 and the IPv6 header.
    fn address(&mut self, net: &IpNet, negated: bool, offsets: (u32, u32)) {
        if !self.family_is_known {
            self.family_is_known = true;
            let family = vec![family_number(Family::of(net))];
            self.put([Expression::Meta(Meta::Family), Expression::Equal(family)]);
        }
        let (offset, octets) = match net.network() {
            std::net::IpAddr::V4(v4) => (offsets.0, v4.octets().to_vec()),
            std::net::IpAddr::V6(v6) => (offsets.1, v6.octets().to_vec()),
        };
        let prefix = usize::from(net.prefix_len());
        // A prefix of whole bytes is compared as so many bytes, any other behind a mask; none at all is a mask of
        // nothing, so that the rule still says what it means.
        let bytes = if prefix.is_multiple_of(8) && prefix > 0 {
            prefix / 8
        } else {
            octets.len()
        };
        self.put([Expression::Payload {
            header: Header::Network,
            offset,
            bytes: bytes as u32,
        }]);
        if bytes * 8 != prefix {
            self.put([Expression::Mask(mask(prefix, octets.len()))]);
        }
        let value = octets.into_iter().take(bytes).collect();
        self.put([if negated {
            Expression::Unequal(value)
        } else {
            Expression::Equal(value)
        }]);
    }

    fn port(&mut self, offset: u32, port: u16, negated: bool) {
        if !self.protocol_is_known
            && let Some(protocol) = self.rule.protocol()
        {
            self.protocol_is_known = true;
            self.put([
                Expression::Meta(Meta::Protocol),
                Expression::Equal(vec![protocol.number()]),
            ]);
        }
        let value = port.to_be_bytes().to_vec();
        self.put([
            Expression::Payload {
                header: Header::Transport,
                offset,
                bytes: 2,
            },
            if negated {
                Expression::Unequal(value)
            } else {
                Expression::Equal(value)
            },
        ]);
    }

    fn target(&mut self) {
        match self.rule.target {
            Target::Return => self.put([Expression::Return]),
            Target::Accept => self.put([Expression::Accept]),
            Target::Drop => self.put([Expression::Drop]),
            Target::Jump(chain) => self.put([Expression::Jump(chain.native_name().to_owned())]),
            Target::Redirect(port) => {
                self.put([
                    Expression::Value(port.get().to_be_bytes().to_vec()),
                    Expression::Redirect,
                ]);
            }
            Target::Tproxy { port, mark } => {
                let family = family_number(self.rule.family.unwrap_or(Family::V4));
                self.put([
                    Expression::Value(port.get().to_be_bytes().to_vec()),
                    Expression::TransparentProxy { family },
                    Expression::Value(number(mark)),
                    Expression::SetMeta(Meta::Mark),
                    Expression::Accept,
                ]);
            }
            Target::SetMark(mark) => {
                self.put([Expression::Value(number(mark)), Expression::SetMeta(Meta::Mark)])
            }
            Target::SaveMark => self.put([
                Expression::Meta(Meta::Mark),
                Expression::SetTracked(Tracked::Mark),
            ]),
            Target::RestoreMark => self.put([
                Expression::Tracked(Tracked::Mark),
                Expression::SetMeta(Meta::Mark),
            ]),
            Target::Zone(zone) => {
                self.put([
                    Expression::Value(zone.to_ne_bytes().to_vec()),
                    Expression::SetTracked(Tracked::Zone),
                ]);
            }
        }
    }
}

/// What the kernel makes itself has the machine's byte order.
fn number(number: u32) -> Vec<u8> {
    number.to_ne_bytes().to_vec()
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => IPV4,
        Family::V6 => IPV6,
    }
}

/// A name whole, or what it begins with.
fn interface(name: &str) -> Vec<u8> {
    match name.strip_suffix('+') {
        Some(start) => start.as_bytes().to_vec(),
        None => {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(NAME_BYTES, 0);
            bytes
        }
    }
}

fn mask(prefix_bits: usize, bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|byte| {
            let ones = prefix_bits.saturating_sub(byte * 8).min(8);
            (0xff00u16 >> ones) as u8
        })
        .collect()
}

/// NF_CT_STATE_INVALID_BIT and NF_CT_STATE_BIT of linux/netfilter/nf_conntrack_common.h.
fn state_bit(state: TrackedState) -> u32 {
    match state {
        TrackedState::Invalid => 1,
        TrackedState::Established => 2,
        TrackedState::Related => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan;
    use crate::testing::config;

    #[test]
    fn masks_have_as_many_ones_as_the_prefix() {
        let check = |bits, expected: [u8; 4]| assert_eq!(mask(bits, 4), expected, "{bits}");
        check(0, [0, 0, 0, 0]);
        check(12, [255, 240, 0, 0]);
        check(25, [255, 255, 255, 128]);
        check(32, [255; 4]);
    }

    #[test]
    fn families_and_protocols_are_asked_for_once_and_first() {
        let rules = plan::rules(&config("-u 1337 -i 11.16.0.0/12 -q 80"));
        let of = |words: &str| {
            let rule = rules.iter().find(|rule| rule.to_string().contains(words));
            rule.map(|rule| super::rules(rule).concat())
        };
        let port = Expression::Payload {
            header: Header::Transport,
            offset: 2,
            bytes: 2,
        };
        assert_eq!(
            of("--dport 80 -j"),
            Some(vec![
                Expression::Meta(Meta::Protocol),
                Expression::Equal(vec![6]),
                port,
                Expression::Equal(vec![0, 80]),
                Expression::Counter,
                Expression::Jump("istio-redirect".to_owned()),
            ])
        );
        let address = Expression::Payload {
            header: Header::Network,
            offset: 16,
            bytes: 4,
        };
        assert_eq!(
            of("-d 11.16.0.0/12"),
            Some(vec![
                Expression::Meta(Meta::Family),
                Expression::Equal(vec![2]),
                address,
                Expression::Mask(vec![255, 240, 0, 0]),
                Expression::Equal(vec![11, 16, 0, 0]),
                Expression::Counter,
                Expression::Jump("istio-redirect".to_owned()),
            ])
        );
    }
}
