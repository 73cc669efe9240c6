//! One saved rule's words as a [`Rule`].
//!
//! Source: what iptables 1.8 prints for the matches and targets of our rules (extensions/libxt_*.c). Anything
//! else is not one of our rules.

use crate::rule::{Chain, Id, Match, Place, Protocol, Rule, Table, Target, Test, TrackedState};

use super::normal;

/// Reads what follows `-A CHAIN `; in the form of [`normal`].
pub(super) fn parse(table: Table, chain: Chain, words: &str) -> Option<Rule> {
    let mut reader = Reader {
        words: words.split_whitespace().peekable(),
        module: "",
        matches: Vec::new(),
    };
    let target = reader.read()?;
    let rule = Rule {
        family: None,
        table,
        chain,
        place: Place::Last,
        matches: reader.matches,
        target,
    };
    Some(normal(&rule))
}

struct Reader<'a, I: Iterator<Item = &'a str>> {
    words: std::iter::Peekable<I>,
    /// Of `-m`: `--mark` means different things after different modules.
    module: &'a str,
    matches: Vec<Match>,
}

impl<'a, I: Iterator<Item = &'a str>> Reader<'a, I> {
    fn read(&mut self) -> Option<Target> {
        loop {
            let mut word = self.words.next()?;
            let negated = word == "!";
            if negated {
                word = self.words.next()?;
            }
            match word {
                "-m" => self.module = self.words.next()?,
                "-j" if !negated => return self.target(),
                _ => {
                    let test = self.test(word)?;
                    self.matches.push(Match { test, negated });
                }
            }
        }
    }

    fn test(&mut self, option: &str) -> Option<Test> {
        let module = self.module;
        let value = self.words.next()?;
        Some(match (option, module) {
            ("-i", _) => Test::InInterface(value.to_owned()),
            ("-o", _) => Test::OutInterface(value.to_owned()),
            ("-s", _) => Test::Source(value.parse().ok()?),
            ("-d", _) => Test::Destination(value.parse().ok()?),
            ("-p", _) => Test::Protocol(protocol(value)?),
            ("--sport", "tcp" | "udp") => Test::SourcePort(value.parse().ok()?),
            ("--dport", "tcp" | "udp") => Test::DestinationPort(value.parse().ok()?),
            ("--dports", "multiport") => Test::DestinationPorts(list(value, |port| port.parse().ok())?),
            ("--uid-owner", "owner") => Test::Uid(id(value)?),
            ("--gid-owner", "owner") => Test::Gid(id(value)?),
            ("--mark", "mark") => Test::Mark(number(value)?),
            ("--mark", "connmark") => Test::ConnectionMark(number(value)?),
            ("--ctstate", "conntrack") => Test::Tracked(list(value, state)?),
            _ => return None,
        })
    }

    fn target(&mut self) -> Option<Target> {
        let name = self.words.next()?;
        let mut options = Vec::new();
        while let Some(option) = self.words.next() {
            let value = self.words.next_if(|word| !word.starts_with("--"));
            options.push((option, value));
        }
        let option = |name: &str| options.iter().find(|(option, _)| *option == name);
        let value = |name: &str| option(name)?.1;
        let mark = |text: &str| full_mask(text);
        Some(match name {
            "RETURN" => Target::Return,
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "REDIRECT" => Target::Redirect(value("--to-ports")?.parse().ok()?),
            "TPROXY" => Target::Tproxy {
                port: value("--on-port")?.parse().ok()?,
                mark: mark(value("--tproxy-mark")?)?,
            },
            "MARK" => Target::SetMark(mark(value("--set-xmark")?)?),
            "CONNMARK" if option("--save-mark").is_some() => Target::SaveMark,
            "CONNMARK" if option("--restore-mark").is_some() => Target::RestoreMark,
            "CT" if options.len() == 1 => Target::Zone(value("--zone")?.parse().ok()?),
            chain => Target::Jump(Chain::parse(chain).filter(|chain| !chain.is_base())?),
        })
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "tcp" | "6" => Some(Protocol::Tcp),
        "udp" | "17" => Some(Protocol::Udp),
        _ => None,
    }
}

fn state(name: &str) -> Option<TrackedState> {
    [
        TrackedState::Invalid,
        TrackedState::Established,
        TrackedState::Related,
    ]
    .into_iter()
    .find(|state| state.name() == name)
}

fn id(text: &str) -> Option<Id> {
    text.parse().ok().map(|number: u32| number.into())
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    text.split(',').map(parse).collect()
}

/// Decimal or 0x….
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `VALUE/MASK` of all bits.
fn full_mask(text: &str) -> Option<u32> {
    let (value, mask) = text.split_once('/').unwrap_or((text, "0xffffffff"));
    (number(mask)? == u32::MAX).then(|| number(value))?
}
