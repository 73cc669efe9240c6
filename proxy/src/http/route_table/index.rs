//! Which routes of a virtual host a path may take, without a look at all of them.
//!
//! Envoy tries one route after the other. Here exact paths and prefixes are looked up by hash, prefixes once for each length that there
//! is; what cannot be looked up (expressions, paths whose case does not matter) is always tried. Candidates come in the order of the
//! routes, so the first that matches is the same one.
use std::collections::{BTreeSet, HashMap};

use smallvec::SmallVec;

/// Below this many routes a walk is as quick.
const FEW: usize = 8;

/// How a route's path is found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key<'a> {
    /// The whole path.
    Exact(&'a str),
    /// Its begin.
    Prefix(&'a str),
    /// It has to be tried.
    Any,
}

/// An index over the routes of a virtual host.
#[derive(Debug, Default)]
pub(super) struct Index {
    routes: usize,
    exact: HashMap<Box<[u8]>, Numbers>,
    prefixes: HashMap<Box<[u8]>, Numbers>,
    /// Lengths of prefixes, ascending.
    lengths: Box<[usize]>,
    always: Numbers,
}

/// Numbers of routes, ascending.
type Numbers = SmallVec<[u32; 2]>;

/// The routes to try, in order.
pub(super) enum Candidates {
    /// All of them.
    All(std::ops::Range<usize>),
    /// These.
    Some(smallvec::IntoIter<[u32; 16]>),
}

impl Index {
    /// Over routes in their order.
    pub(super) fn new<'a>(keys: impl ExactSizeIterator<Item = Key<'a>>) -> Self {
        let mut index = Self {
            routes: keys.len(),
            ..Self::default()
        };
        if index.routes <= FEW {
            return index;
        }
        let mut lengths = BTreeSet::new();
        for (number, key) in (0_u32..).zip(keys) {
            let numbers = match key {
                Key::Exact(path) => index.exact.entry(path.as_bytes().into()).or_default(),
                Key::Prefix(prefix) => {
                    lengths.insert(prefix.len());
                    index.prefixes.entry(prefix.as_bytes().into()).or_default()
                }
                Key::Any => &mut index.always,
            };
            numbers.push(number);
        }
        index.lengths = lengths.into_iter().collect();
        index
    }

    /// The routes that this path may take. Allocates when there are many.
    pub(super) fn candidates(&self, path: &str) -> Candidates {
        if self.routes <= FEW {
            return Candidates::All(0..self.routes);
        }
        let path = path.as_bytes();
        let mut found = SmallVec::<[u32; 16]>::from_slice(&self.always);
        found.extend(self.exact.get(path).into_iter().flatten().copied());
        for len in &self.lengths {
            let Some(begin) = path.get(..*len) else { break };
            found.extend(self.prefixes.get(begin).into_iter().flatten().copied());
        }
        found.sort_unstable();
        Candidates::Some(found.into_iter())
    }
}

impl Iterator for Candidates {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Self::All(numbers) => numbers.next(),
            Self::Some(numbers) => numbers.next().map(|number| number as usize),
        }
    }
}
