//! Header names with `_`, which some applications take for `-`: whoever checks `x-user` has not checked `x_user`.
//! Source: Envoy protocol.proto `HeadersWithUnderscoresAction`; `checkHeaderNameForUnderscores` of its codecs.
use http::HeaderMap;
use smallvec::SmallVec;

use crate::stats::Counter;

/// What becomes of them in requests. Trailers count as headers.
#[derive(Debug, Clone)]
pub(crate) enum Underscores {
    /// They pass.
    Allow,
    /// The request is refused, and counted here.
    Reject(Counter),
    /// They are left out, each counted here.
    Drop(Counter),
}

/// A request is refused for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a header name has an underscore")]
pub(super) struct UnwantedName;

impl Underscores {
    /// Whether a header with this name stays.
    ///
    /// # Errors
    /// The request does not.
    pub(super) fn keeps(&self, name: &str) -> Result<bool, UnwantedName> {
        let counter = match self {
            Self::Allow => return Ok(true),
            Self::Reject(counter) | Self::Drop(counter) => counter,
        };
        if !name.contains('_') {
            return Ok(true);
        }
        counter.inc();
        match self {
            Self::Reject(_) => Err(UnwantedName),
            Self::Allow | Self::Drop(_) => Ok(false),
        }
    }

    /// Takes unwanted headers out.
    ///
    /// # Errors
    /// The request is refused.
    pub(super) fn clean(&self, headers: &mut HeaderMap) -> Result<(), UnwantedName> {
        if matches!(self, Self::Allow) {
            return Ok(());
        }
        let mut unwanted = SmallVec::<[_; 4]>::new();
        // A name comes once for each of its values.
        for (name, _) in headers.iter() {
            if !self.keeps(name.as_str())? {
                unwanted.push(name.clone());
            }
        }
        for name in unwanted {
            headers.remove(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{Registry, TagRules, text};

    #[track_caller]
    fn check(action: fn(Counter) -> Underscores, expected: Result<&[&str], UnwantedName>, counted: u64) {
        let registry = Registry::new(TagRules::new(&[], false).expect("no rule"));
        let mut headers = HeaderMap::new();
        for name in ["x-user", "x_user", "a", "x_user", "_"] {
            headers.append(name, http::HeaderValue::from_static("1"));
        }
        let cleaned = action(registry.counter("n")).clean(&mut headers);
        let names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(cleaned.map(|()| names.as_slice()), expected);
        assert_eq!(text(&registry, None, false), format!("n: {counted}\n"));
    }

    #[test]
    fn names_with_underscores_pass_or_go_or_end_the_request() {
        check(|_| Underscores::Allow, Ok(&["x-user", "x_user", "a", "_"]), 0);
        check(Underscores::Drop, Ok(&["x-user", "a"]), 3);
        check(Underscores::Reject, Err(UnwantedName), 1);
    }
}
