//! Which saved rules are ours.
//!
//! Chains tell by their names. A rule of a chain of the kernel's is ours if it jumps to one of those; if it is one
//! of the rules that are wanted now; or if it is one that an earlier run with other flags must have
//! written. The last is decided by several signs at once, so that a rule of others is never taken for ours; the
//! one kind that leaves too few signs (`-k` without any redirected destination) is kept for a foreign one.

use std::ops::Range;

use super::{PREFIX, SavedTable, normal, words};
use crate::rule::{Chain, Match, Rule, Table, Target, Test};

/// Our part of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ours {
    /// Names of our chains.
    pub chains: Vec<String>,
    /// Our rules in chains of the kernel's, in order.
    pub rules: Vec<Placed>,
}

/// A rule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub chain: String,
    /// Among all rules of its chain; the first is 1.
    pub position: usize,
    pub words: String,
    /// Whether the same words stand elsewhere in its chain.
    pub has_copy: bool,
}

impl Ours {
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.rules.is_empty()
    }
}

/// Our part of `saved`. `known` are rules that count as ours wherever they stand in their chains.
pub fn ours(table: Table, saved: &SavedTable, known: &[Rule]) -> Ours {
    let chains: Vec<String> = saved.own_chains().map(str::to_owned).collect();
    if chains.is_empty() {
        // Whatever looks like ours here, its like in our chains is missing: we write a table as a whole.
        return Ours::default();
    }
    let base = Base::read(table, saved);
    let mut rules = Vec::new();
    for (chain, lines) in [
        (Chain::Prerouting, &base.prerouting),
        (Chain::Output, &base.output),
    ] {
        let known = known
            .iter()
            .filter(|rule| rule.table == table && rule.chain == chain);
        let mut known: Vec<Rule> = known.map(normal).collect();
        let mut take_known = |line: &Line<'_>| {
            let found = known.iter().position(|rule| line.rule.as_ref() == Some(rule));
            found.map(|found| known.swap_remove(found)).is_some()
        };
        // By their signs first: what is left of the known rules then stands for one saved rule each, and a copy of
        // one is somebody else's.
        let signed = |index, line: &Line<'_>| line.jumps_to_ours() || base.is_left_over(chain, index);
        let mut is_ours: Vec<bool> = lines
            .iter()
            .enumerate()
            .map(|(i, line)| signed(i, line))
            .collect();
        for pass in [true, false] {
            for (line, ours) in lines.iter().zip(&mut is_ours).filter(|(_, ours)| **ours == pass) {
                *ours |= take_known(line);
            }
        }
        for (index, line) in lines.iter().enumerate() {
            if is_ours.get(index) == Some(&true) {
                rules.push(Placed {
                    chain: chain.name().to_owned(),
                    position: index + 1,
                    words: line.words.to_owned(),
                    has_copy: lines.iter().filter(|other| other.words == line.words).count() > 1,
                });
            }
        }
    }
    Ours { chains, rules }
}

struct Line<'a> {
    words: &'a str,
    rule: Option<Rule>,
}

impl Line<'_> {
    fn jumps_to_ours(&self) -> bool {
        let mut words = self.words.split(' ');
        let jump = words.find(|word| matches!(*word, "-j" | "-g"));
        jump.is_some() && words.next().is_some_and(|target| target.starts_with(PREFIX))
    }

    /// `-i NAME -j RETURN` or `-o NAME -j RETURN`.
    fn returned_interface(&self) -> Option<&str> {
        let rule = self.rule.as_ref()?;
        let [one] = rule.matches.as_slice() else {
            return None;
        };
        match &one.test {
            Test::InInterface(name) | Test::OutInterface(name)
                if !one.negated && rule.target == Target::Return =>
            {
                Some(name)
            }
            _ => None,
        }
    }
}

/// The chains of the kernel's in one table.
struct Base<'a> {
    prerouting: Vec<Line<'a>>,
    output: Vec<Line<'a>>,
    /// Of TPROXY mode, where our chains use one.
    mark: Option<u32>,
}

impl<'a> Base<'a> {
    fn read(table: Table, saved: &'a SavedTable) -> Self {
        let lines = |chain: Chain| {
            let lines = saved.rules(chain.name()).iter().map(|words| Line {
                words,
                rule: words::parse(table, chain, words),
            });
            lines.collect()
        };
        Base {
            prerouting: lines(Chain::Prerouting),
            output: lines(Chain::Output),
            mark: tproxy_mark(table, saved),
        }
    }

    fn is_left_over(&self, chain: Chain, index: usize) -> bool {
        let (lines, opposite) = match chain {
            Chain::Output => (&self.output, &self.prerouting),
            _ => (&self.prerouting, &self.output),
        };
        let Some(line) = lines.get(index) else {
            return false;
        };
        if let Some(name) = line.returned_interface() {
            let excluded = self.run(lines).contains(&index)
                && self.run(opposite).any(|index| {
                    let opposite = opposite.get(index).and_then(Line::returned_interface);
                    opposite == Some(name)
                });
            return excluded || (chain == Chain::Prerouting && self.is_virtual(name));
        }
        self.mark.is_some_and(|mark| is_marking(line, mark))
    }

    /// Where excluded interfaces (`-c`) stand, in both chains alike: in an unbroken run just before our other
    /// rules, or before the end if there are none.
    fn run(&self, lines: &[Line<'_>]) -> Range<usize> {
        let is_other = |line: &Line<'_>| {
            // Jumps for interfaces of virtual machines are inserted, so they stand before the run.
            (line.jumps_to_ours() && !names_interface(line))
                || self.mark.is_some_and(|mark| is_marking(line, mark))
        };
        let end = lines.iter().position(is_other).unwrap_or(lines.len());
        let before = lines.get(..end).unwrap_or_default();
        let returned = before
            .iter()
            .rev()
            .take_while(|line| line.returned_interface().is_some());
        end - returned.count()..end
    }

    /// Interfaces of virtual machines (`-k`) are redirected as well.
    fn is_virtual(&self, name: &str) -> bool {
        self.prerouting.iter().any(|line| {
            let enters = |rule: &Rule| {
                let interface = Test::InInterface(name.to_owned());
                rule.matches
                    .iter()
                    .any(|one| one.test == interface && !one.negated)
            };
            line.jumps_to_ours() && line.rule.as_ref().is_some_and(enters)
        })
    }
}

fn names_interface(line: &Line<'_>) -> bool {
    line.rule.as_ref().is_some_and(|rule| {
        let mut tests = rule.matches.iter().map(|one| &one.test);
        tests.any(|test| matches!(test, Test::InInterface(_)))
    })
}

/// TPROXY mode's mark: that of the first rule of mangle ISTIO_INBOUND.
pub(crate) fn tproxy_mark(table: Table, saved: &SavedTable) -> Option<u32> {
    let chain = Chain::IstioInbound;
    let first = saved
        .rules(chain.name())
        .first()
        .filter(|_| table == Table::Mangle)?;
    let rule = words::parse(table, chain, first).filter(|rule| rule.target == Target::Return)?;
    rule.matches.iter().find_map(|one| match one.test {
        Test::Mark(mark) if !one.negated => Some(mark),
        _ => None,
    })
}

/// Whether `line` is one of the rules that TPROXY mode writes about marks.
fn is_marking(line: &Line<'_>, mark: u32) -> bool {
    let Some(rule) = &line.rule else { return false };
    let has = |wanted: Test| rule.matches.iter().any(|one| one.test == wanted && !one.negated);
    match rule.target {
        Target::SaveMark => has(Test::Mark(mark)),
        Target::RestoreMark => has(Test::ConnectionMark(mark)),
        Target::Return => has(Test::Mark(mark)) && has(Test::OutInterface("lo".to_owned())),
        Target::SetMark(set) => {
            let owner = |one: &Match| matches!(one.test, Test::Uid(_) | Test::Gid(_)) && !one.negated;
            set == crate::plan::OUTBOUND_MARK
                && has(Test::OutInterface("lo".to_owned()))
                && rule.matches.iter().any(owner)
        }
        _ => false,
    }
}
