//! What a client accepts. Source: Envoy `CompressorFilter::chooseEncoding`; RFC 9110 §12.5.3.

/// What `accept-encoding` chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// This encoding, by its name.
    Named,
    /// This encoding, by `*`.
    Wildcard,
    /// None.
    Identity,
    /// Nothing that is here.
    Invalid,
}

impl Choice {
    pub(super) fn is_used(self) -> bool {
        matches!(self, Self::Named | Self::Wildcard)
    }
}

/// Chooses between `encoding`, if it is there, and none. As Envoy: names are compared byte by byte, the first of those that the client likes
/// most wins, and what has a weight that is no number is passed over.
pub(super) fn choose(accepted: &str, encoding: &str, mut is_there: bool) -> Choice {
    let mut best = ("", 0_f32);
    let tokens = accepted
        .split(',')
        .filter_map(weighed)
        .filter(|(name, _)| !name.is_empty());
    let tokens: smallvec::SmallVec<[(&str, f32); 4]> = tokens.collect();
    if tokens
        .iter()
        .any(|(name, weight)| *name == encoding && *weight == 0.0)
    {
        is_there = false;
    }
    for (name, weight) in tokens {
        if weight > best.1 && ((is_there && name == encoding) || matches!(name, "identity" | "*")) {
            best = (name, weight);
        }
    }
    match best.0 {
        "" => Choice::Invalid,
        "identity" => Choice::Identity,
        "*" if is_there => Choice::Wildcard,
        "*" => Choice::Invalid,
        _ => Choice::Named,
    }
}

fn weighed(token: &str) -> Option<(&str, f32)> {
    let Some((name, parameter)) = token.split_once(';') else {
        return Some((token.trim(), 1.0));
    };
    match parameter.split_once('=') {
        Some((key, weight)) if key.trim().eq_ignore_ascii_case("q") => {
            Some((name.trim(), weight.trim().parse().ok()?))
        }
        _ => Some((name.trim(), 1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_by_weight_then_by_order() {
        let check = |accepted, expected| assert_eq!(choose(accepted, "gzip", true), expected, "{accepted:?}");
        check("gzip", Choice::Named);
        check("", Choice::Invalid);
        check("br", Choice::Invalid);
        check("GZIP", Choice::Invalid);
        check("*", Choice::Wildcard);
        check("gzip;q=0, *", Choice::Invalid);
        check("gzip;q=0", Choice::Invalid);
        check("gzip;q=x", Choice::Invalid);
        check("deflate, gzip;q=0.5", Choice::Named);
        check("identity;q=0.5, gzip;q=0.4", Choice::Identity);
        check("identity, gzip", Choice::Identity);
        check("gzip, identity", Choice::Named);
        check("x, *;q=0.1", Choice::Wildcard);
        check("gzip ; Q = 0.7", Choice::Named);
        check("gzip;level=1", Choice::Named);
        assert_eq!(choose("gzip", "gzip", false), Choice::Invalid);
    }
}
