//! Flags that Istio's program does not have: `--backend`, `--explain`, `--no-selftest`.
//!
//! Flags only: none of them has a variable, so that none that happens to be set can change what is done.

use super::setting::{Setting, Settings};
use super::{ConfigError, Method, name, values};
use crate::backend::Variant;
use crate::explain::{Owner, Question, question};
use crate::flags::Flags;

/// One connection to explain, and whose it is if it goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explain {
    pub question: Question,
    pub owner: Owner,
}

/// `--backend`, which says in one word what `--native-nftables` and `--force-iptables-binary` say in two.
pub(super) fn method(
    flags: &Flags,
    settings: &Settings<'_>,
    forced: Option<Variant>,
) -> Result<(Method, Option<Variant>), ConfigError> {
    let native = settings.switch(&flags.native_nftables, name::NATIVE_NFTABLES)?;
    let given = flags.backend.as_deref().unwrap_or_default();
    let setting = Setting::new("--backend", given);
    let (method, variant) = match given {
        "" | "auto" if native => return Ok((Method::Nftables, forced)),
        "" | "auto" => return Ok((Method::Iptables, forced)),
        "legacy" => (Method::Iptables, Some(Variant::Legacy)),
        "nft" => (Method::Iptables, Some(Variant::Nft)),
        "nftables" => (Method::Nftables, None),
        "netlink" => (Method::Netlink, None),
        _ => return Err(setting.bad("none of auto, legacy, nft, nftables, netlink")),
    };
    if native && method == Method::Iptables {
        return Err(setting.bad("contradicts --native-nftables"));
    }
    if forced.is_some() && forced != variant {
        return Err(setting.bad("contradicts --force-iptables-binary"));
    }
    Ok((method, variant))
}

/// `--explain`, with `--uid` (default 0) and `--gid` (default the same number).
pub(super) fn explain(flags: &Flags) -> Result<Option<Explain>, ConfigError> {
    let id = |name, given: &Option<String>| {
        let setting = given.as_ref().map(|text| Setting::new(name, text));
        setting.map(|setting| setting.one(number)).transpose()
    };
    let (uid, gid) = (id("--uid", &flags.uid)?, id("--gid", &flags.gid)?);
    let Some(about) = &flags.explain else {
        return match flags
            .uid
            .as_ref()
            .map(|uid| ("--uid", uid))
            .or(flags.gid.as_ref().map(|gid| ("--gid", gid)))
        {
            Some((name, value)) => Err(Setting::new(name, value).bad("means nothing without --explain")),
            None => Ok(None),
        };
    };
    let question = Setting::new("--explain", about).one(question::parse)?;
    let uid = uid.unwrap_or(0);
    let owner = Owner {
        uid,
        gid: gid.unwrap_or(uid),
    };
    Ok(Some(Explain { question, owner }))
}

/// Whether the rules are proven once they are in place.
pub(super) fn selftest(flags: &Flags) -> Result<bool, ConfigError> {
    let given = flags
        .no_selftest
        .as_ref()
        .map(|text| Setting::new("--no-selftest", text));
    Ok(!given.map_or(Ok(false), |setting| setting.one(values::switch))?)
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "not a user or group number".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;
    use crate::testing::try_config;

    fn check(line: &str, expected: Result<(Method, Option<Variant>), &str>) {
        let found = try_config(line).map(|config: Config| (config.method, config.force_variant));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{line}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{line}: {error}"),
            (found, expected) => panic!("{line}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn a_backend_is_named_once_or_the_same_twice() {
        check("", Ok((Method::Iptables, None)));
        check("--backend auto --native-nftables", Ok((Method::Nftables, None)));
        check("--backend legacy", Ok((Method::Iptables, Some(Variant::Legacy))));
        check(
            "--backend nft --force-iptables-binary nft",
            Ok((Method::Iptables, Some(Variant::Nft))),
        );
        check("--backend netlink --native-nftables", Ok((Method::Netlink, None)));
        check("--backend nftables", Ok((Method::Nftables, None)));
        check(
            "--backend=nft --native-nftables",
            Err("contradicts --native-nftables"),
        );
        check(
            "--backend=netlink --force-iptables-binary=legacy",
            Err("contradicts --force-iptables-binary"),
        );
        check("--backend bpf", Err("--backend: bad value \"bpf\""));
    }

    #[test]
    fn explain_needs_a_connection_and_nothing_else() {
        let explained = try_config("--explain 10.0.0.5:80 --uid 7")
            .unwrap()
            .explain
            .unwrap();
        assert_eq!((explained.owner.uid, explained.owner.gid), (7, 7));
        check(
            "--uid 7",
            Err("--uid: bad value \"7\": means nothing without --explain"),
        );
        check("--gid 7", Err("--gid: bad value \"7\""));
        check("--explain 10.0.0.5:80 --uid x", Err("--uid: bad value \"x\""));
        check("--explain 10.0.0.5", Err("--explain: bad value \"10.0.0.5\""));
        assert!(try_config("").unwrap().selftest);
        assert!(!try_config("--no-selftest").unwrap().selftest);
        check("--no-selftest=maybe", Err("--no-selftest: bad value \"maybe\""));
    }
}
