//! Asks the kernel for each thing that rules may need, in a namespace to throw away.
//!
//! A module is missing when the kernel refuses what needs it; lists of modules only explain why. The child
//! tries one rule for each feature with each kind of program, and nf_tables itself over netlink, and prints a
//! line per answer. Knows no configuration: what of this is needed is `super::modules`'s question.

use std::fmt::Write as _;
use std::io::Read;

use crate::backend::program::{self, ProgramError};
use crate::netlink::nft::expression::{Expression, Header, Meta, Tracked};
use crate::netlink::nft::{self, Hook, OUTPUT, PREROUTING};
use crate::throwaway::{self, NoNamespace};

/// The word that makes this program the child.
pub const CHILD_WORD: &str = "probe-kernel";

/// Something that a rule may need.
#[derive(Debug)]
pub(crate) struct Feature {
    /// For people.
    pub(crate) name: &'static str,
    pub(crate) table: &'static str,
    /// A rule that uses it and whose packets nobody sends.
    rule: &'static str,
    /// A word of restore text that shows the need of it; none: every rule of the table does.
    pub(crate) word: Option<&'static str>,
    /// Modules of xtables that have it, beside those of the table.
    pub(crate) modules: &'static [&'static str],
    /// The same of nf_tables.
    pub(crate) native_modules: &'static [&'static str],
    native: fn() -> Vec<Expression>,
}

/// Each table is probed before what is in it.
pub(crate) const FEATURES: &[Feature] = &[
    table(
        "nat",
        "OUTPUT -p 255 -j RETURN",
        &["nf_nat"],
        &["nf_tables", "nft_chain_nat", "nf_nat"],
    ),
    Feature {
        name: "REDIRECT",
        word: Some("REDIRECT"),
        native: || vec![Expression::Value(vec![0, 1]), Expression::Redirect],
        ..feature(
            "nat",
            "OUTPUT -p tcp -j REDIRECT --to-ports 1",
            &["xt_REDIRECT"],
            &["nft_redir"],
        )
    },
    Feature {
        name: "TCP and UDP ports",
        word: Some("--dport"),
        native: || {
            let port = Expression::Payload {
                header: Header::Transport,
                offset: 2,
                bytes: 2,
            };
            vec![port, Expression::Equal(vec![0, 1])]
        },
        ..feature(
            "nat",
            "OUTPUT -p tcp --dport 1 -j RETURN",
            &["xt_tcpudp"],
            &["nf_tables"],
        )
    },
    Feature {
        name: "owner of a socket",
        word: Some("owner"),
        native: || vec![Expression::Meta(Meta::Uid), Expression::Equal(vec![0; 4])],
        ..feature(
            "nat",
            "OUTPUT -p 255 -m owner --uid-owner 0 -j RETURN",
            &["xt_owner"],
            &["nf_tables"],
        )
    },
    Feature {
        name: "lists of ports",
        word: Some("multiport"),
        native: Vec::new,
        ..feature(
            "nat",
            "OUTPUT -p tcp -m multiport --dports 1,2 -j RETURN",
            &["xt_multiport"],
            &[],
        )
    },
    table("mangle", "OUTPUT -p 255 -j RETURN", &[], &["nf_tables"]),
    Feature {
        name: "state of a connection",
        word: Some("conntrack"),
        native: || {
            vec![
                Expression::Tracked(Tracked::State),
                Expression::Mask(vec![1, 0, 0, 0]),
            ]
        },
        ..feature(
            "mangle",
            "PREROUTING -p 255 -m conntrack --ctstate INVALID -j RETURN",
            &["nf_conntrack", "xt_conntrack"],
            &["nf_conntrack", "nft_ct"],
        )
    },
    Feature {
        name: "packet mark",
        word: Some("mark"),
        native: || vec![Expression::Meta(Meta::Mark), Expression::SetMeta(Meta::Mark)],
        ..feature(
            "mangle",
            "OUTPUT -p 255 -m mark --mark 1 -j MARK --set-mark 1",
            &["xt_mark"],
            &["nf_tables"],
        )
    },
    Feature {
        name: "connection mark",
        word: Some("CONNMARK"),
        native: || {
            vec![
                Expression::Tracked(Tracked::Mark),
                Expression::SetMeta(Meta::Mark),
            ]
        },
        ..feature(
            "mangle",
            "OUTPUT -p 255 -m connmark --mark 1 -j CONNMARK --restore-mark",
            &["xt_connmark"],
            &["nf_conntrack", "nft_ct"],
        )
    },
    Feature {
        name: "TPROXY",
        word: Some("TPROXY"),
        native: || {
            let tcp = [Expression::Meta(Meta::Protocol), Expression::Equal(vec![6])];
            let to = [
                Expression::Value(vec![0, 1]),
                Expression::TransparentProxy { family: 0 },
            ];
            [tcp, to].concat()
        },
        ..feature(
            "mangle",
            "PREROUTING -p tcp -j TPROXY --on-port 1 --tproxy-mark 1",
            &["nf_tproxy_ipv4", "nf_tproxy_ipv6", "xt_TPROXY"],
            &["nf_tproxy_ipv4", "nf_tproxy_ipv6", "nft_tproxy"],
        )
    },
    table("raw", "OUTPUT -p 255 -j RETURN", &[], &["nf_tables"]),
    Feature {
        name: "conntrack zones",
        word: Some("CT"),
        native: || {
            vec![
                Expression::Value(vec![1, 0]),
                Expression::SetTracked(Tracked::Zone),
            ]
        },
        ..feature(
            "raw",
            "OUTPUT -p udp --dport 1 -j CT --zone 1",
            &["nf_conntrack", "xt_CT"],
            &["nf_conntrack", "nft_ct"],
        )
    },
];

const fn table(
    table: &'static str,
    rule: &'static str,
    modules: &'static [&'static str],
    native_modules: &'static [&'static str],
) -> Feature {
    feature(table, rule, modules, native_modules)
}

const fn feature(
    table: &'static str,
    rule: &'static str,
    modules: &'static [&'static str],
    native_modules: &'static [&'static str],
) -> Feature {
    Feature {
        name: "table",
        table,
        rule,
        word: None,
        modules,
        native_modules,
        native: Vec::new,
    }
}

/// Who was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Legacy,
    Nft,
    Plain,
    Netlink,
}

impl Way {
    pub(crate) const ALL: [Way; 4] = [Way::Legacy, Way::Nft, Way::Plain, Way::Netlink];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Legacy => "legacy",
            Way::Nft => "nft",
            Way::Plain => "plain",
            Way::Netlink => "netlink",
        }
    }

    fn program(self, v6: bool) -> Option<String> {
        let suffix = match self {
            Way::Legacy => "-legacy",
            Way::Nft => "-nft",
            Way::Plain => "",
            Way::Netlink => return None,
        };
        Some(format!("{}{suffix}", if v6 { "ip6tables" } else { "iptables" }))
    }
}

/// What one way said about one feature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) way: Way,
    pub(crate) v6: bool,
    /// Index in [`FEATURES`].
    pub(crate) feature: usize,
    /// The complaint, in the kernel's or the program's words.
    pub(crate) outcome: Result<(), String>,
}

/// All answers, and why programs gave none, if they did not.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) answers: Vec<Answer>,
    pub(crate) untried: Option<String>,
}

/// Before the reason in what the child prints.
const UNTRIED: &str = "untried\t";

/// Asks everything; `v6` adds IPv6 programs.
pub(crate) fn ask(v6: bool) -> Asked {
    let words = [CHILD_WORD, if v6 { "v6" } else { "v4" }];
    let answered = throwaway::child(&words).and_then(|mut child| {
        let mut text = String::new();
        if let Some(mut out) = child.stdout.take() {
            out.read_to_string(&mut text).map_err(NoNamespace::Spawn)?;
        }
        child.wait().map_err(NoNamespace::Spawn)?;
        Ok(text)
    });
    match answered {
        Ok(text) => Asked {
            untried: text
                .lines()
                .find_map(|line| line.strip_prefix(UNTRIED))
                .map(str::to_owned),
            answers: text.lines().filter_map(read_line).collect(),
        },
        Err(error) => Asked {
            untried: Some(error.to_string()),
            ..Asked::default()
        },
    }
}

/// What the child does: an answer a line.
///
/// Without a namespace of its own it may only ask what leaves no trace.
pub fn child(v6: bool) -> String {
    let mut text = String::new();
    let ways = match throwaway::enter() {
        Ok(()) => Way::ALL.as_slice(),
        Err(error) => {
            let _ = writeln!(text, "{UNTRIED}{error}");
            &[Way::Netlink]
        }
    };
    for way in ways {
        for family in [false, true] {
            if family && (!v6 || *way == Way::Netlink) {
                continue;
            }
            for (feature, outcome) in outcomes(*way, family) {
                let outcome = match outcome {
                    Ok(()) => "ok".to_owned(),
                    Err(complaint) => complaint.replace(['\n', '\t'], " "),
                };
                let _ = writeln!(text, "{}\t{family}\t{feature}\t{outcome}", way.name());
            }
        }
    }
    text
}

fn outcomes(way: Way, v6: bool) -> Vec<(usize, Result<(), String>)> {
    let program = way.program(v6).map(|name| program::find(&name));
    // A program that is not there was not asked; that is for the finding about programs to say.
    if matches!(program, Some(Err(_))) {
        return Vec::new();
    }
    let try_one = |feature: &Feature| match &program {
        Some(Ok(path)) => {
            let mut args = vec!["-t", feature.table, "-A"];
            args.extend(feature.rule.split(' '));
            program::run(path, &args, "").map(drop).map_err(complaint)
        }
        _ => natively(feature),
    };
    FEATURES
        .iter()
        .enumerate()
        .filter(|(_, feature)| way != Way::Netlink || !feature.native_modules.is_empty())
        .map(|(index, feature)| (index, try_one(feature)))
        .collect()
}

/// Without the advice that comes with it elsewhere: giving advice is the doctor's business.
fn complaint(error: ProgramError) -> String {
    match error {
        ProgramError::Permission { complaint, .. }
        | ProgramError::Kernel { complaint, .. }
        | ProgramError::Refused { complaint, .. } => complaint,
        other => other.to_string(),
    }
}

/// Has nf_tables look at a table, a chain and a rule, and forget them.
fn natively(feature: &Feature) -> Result<(), String> {
    let name = "istio-proxy-probe";
    let (kind, priority) = match feature.table {
        "nat" => ("nat", -100),
        "mangle" => ("filter", -150),
        _ => ("filter", -300),
    };
    let inbound = feature.rule.starts_with("PREROUTING");
    let hook = Hook {
        kind,
        number: if inbound { PREROUTING } else { OUTPUT },
        priority,
    };
    let messages = [
        nft::new_table(nft::INET, name),
        nft::new_chain(nft::INET, name, "probe", Some(hook)),
        nft::new_rule(nft::INET, name, "probe", &(feature.native)()),
    ];
    nft::check(&messages).map_err(|refusal| {
        let what = ["table", "chain", "rule"];
        let what = what.get(refusal.message).unwrap_or(&"batch");
        format!("nf_tables: {what} refused: {}", refusal.errno)
    })
}

fn read_line(line: &str) -> Option<Answer> {
    let mut parts = line.splitn(4, '\t');
    let name = parts.next()?;
    let v6 = parts.next()? == "true";
    let feature = parts
        .next()?
        .parse()
        .ok()
        .filter(|index| *index < FEATURES.len())?;
    let outcome = match parts.next()? {
        "ok" => Ok(()),
        complaint => Err(complaint.to_owned()),
    };
    Some(Answer {
        way: Way::ALL.into_iter().find(|way| way.name() == name)?,
        v6,
        feature,
        outcome,
    })
}
