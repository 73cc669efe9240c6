//! When resources expire that came with a time to live. Source: xDS protocol, "TTL".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The resources of one type that have a time to live. Times are as told by [`super::Session::advance`].
#[derive(Debug, Default)]
pub(super) struct Expiries {
    by_name: BTreeMap<String, Duration>,
    in_order: BTreeSet<(Duration, String)>,
}

impl Expiries {
    /// Replaces the time of a name; `None`: it lives until it is removed. O(log n).
    pub(super) fn set(&mut self, name: &str, at: Option<Duration>) {
        if let Some((name, before)) = self.by_name.remove_entry(name) {
            self.in_order.remove(&(before, name));
        }
        if let Some(at) = at {
            self.by_name.insert(name.to_owned(), at);
            self.in_order.insert((at, name.to_owned()));
        }
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes out what has expired.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<String> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            if let Some((_, name)) = self.in_order.pop_first() {
                self.by_name.remove(&name);
                due.push(name);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_last_word_about_a_name_counts() {
        let mut expiries = Expiries::default();
        for (name, time) in [("a", 1), ("b", 2), ("c", 3)] {
            expiries.set(name, Some(at(time)));
        }
        expiries.set("a", Some(at(9)));
        expiries.set("b", None);
        assert_eq!(expiries.next(), Some(at(3)));
        assert!(expiries.take_due(at(2)).is_empty());
        assert_eq!(expiries.take_due(at(9)), ["c", "a"]);
        assert_eq!(expiries.next(), None);
    }
}
