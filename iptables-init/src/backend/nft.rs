//! The `nft` program: what our native tables hold, and one file to change them.
//!
//! `nft` gives rules back in other words than it took, so both sides are brought into one form before they are
//! compared. A version that prints something else still works: the same tables are written once more.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ipnet::IpNet;

use super::ProgramError;
use super::program::{find, run};
use crate::nft::words;
use crate::plan::NativeChain;
use crate::rule::Table;
use crate::saved::Verdict;

/// The program, and our tables as it showed them.
pub struct Nft {
    program: PathBuf,
    pub listing: Listing,
}

/// Our native tables, as `nft list ruleset` prints them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    tables: BTreeMap<Table, String>,
}

/// Rules by table and chain, each rule in the form in which rules are compared.
type Chains = BTreeMap<(Table, String), Vec<String>>;

impl Nft {
    /// # Errors
    /// The program is missing, or its complaint.
    pub fn find() -> Result<Self, ProgramError> {
        let mut nft = Nft {
            program: find("nft")?,
            listing: Listing::default(),
        };
        nft.listing = Listing::parse(&nft.list()?);
        Ok(nft)
    }

    /// All tables of family `inet`, others' too.
    ///
    /// # Errors
    /// The program's complaint.
    pub fn list(&self) -> Result<String, ProgramError> {
        run(&self.program, &["list", "ruleset", "inet"], "")
    }

    /// One transaction.
    ///
    /// # Errors
    /// The program's complaint; nothing has changed then.
    pub fn run_file(&self, file: &str) -> Result<(), ProgramError> {
        run(&self.program, &["-f", "-"], file).map(drop)
    }
}

impl Listing {
    /// Reads the output of `nft list ruleset`, and keeps what is ours of it.
    pub fn parse(text: &str) -> Self {
        let mut tables = BTreeMap::new();
        let mut current = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("table inet ") {
                let name = name.split(' ').next().unwrap_or_default();
                current = Table::ALL.into_iter().find(|table| table.native_name() == name);
            }
            if let Some(table) = current {
                let block: &mut String = tables.entry(table).or_default();
                block.push_str(line);
                block.push('\n');
            }
            if line == "}" {
                current = None;
            }
        }
        Listing { tables }
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// A file that brings these tables back, whatever is there.
    pub fn file(&self) -> String {
        let mut file = crate::nft::cleanup();
        file.extend(self.tables.values().map(String::as_str));
        file
    }

    pub fn compare(&self, wanted: &[NativeChain]) -> Verdict {
        if self.is_empty() {
            return Verdict::Absent;
        }
        let (found, wanted) = (self.chains(), chains(wanted));
        let names = found.keys().chain(wanted.keys());
        let differs = names
            .into_iter()
            .find(|name| found.get(*name) != wanted.get(*name));
        match differs {
            None => Verdict::Equal,
            Some((table, chain)) => Verdict::Differs(format!("chain {chain} in {}", table.native_name())),
        }
    }

    /// TPROXY mode's mark, if these tables are of that mode.
    pub fn tproxy_mark(&self) -> Option<u32> {
        let chains = self.chains();
        let rule = chains
            .get(&(Table::Mangle, "istio-inbound".to_owned()))?
            .first()?;
        let mark = rule
            .strip_prefix("meta l4proto tcp meta mark ")?
            .strip_suffix(" counter return")?;
        mark.parse().ok()
    }

    fn chains(&self) -> Chains {
        let mut chains = Chains::new();
        for (table, block) in &self.tables {
            let mut chain = String::new();
            for line in block.lines().map(str::trim) {
                if let Some(name) = line
                    .strip_prefix("chain ")
                    .and_then(|rest| rest.strip_suffix(" {"))
                {
                    name.clone_into(&mut chain);
                    chains.insert((*table, chain.clone()), Vec::new());
                } else if let Some(rules) = chains.get_mut(&(*table, chain.clone()))
                    && !line.is_empty()
                    && line != "}"
                    && !line.starts_with("type ")
                {
                    rules.push(normal(line));
                }
            }
        }
        chains
    }
}

fn chains(wanted: &[NativeChain]) -> Chains {
    let chain = |chain: &NativeChain| {
        let rules = chain.rules.iter().map(|rule| normal(&words(rule)));
        (
            (chain.table, chain.chain.native_name().to_owned()),
            rules.collect(),
        )
    };
    wanted.iter().map(chain).collect()
}

/// A rule without what counters counted, with plain decimal numbers, whole networks, sorted lists.
fn normal(rule: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut words = rule.split_whitespace();
    while let Some(word) = words.next() {
        if matches!(word, "packets" | "bytes") && out.last().is_some_and(|last| last == "counter") {
            words.next();
            continue;
        }
        out.push(plain(word));
    }
    out.join(" ")
}

fn plain(word: &str) -> String {
    if let Some(number) = word
        .strip_prefix("0x")
        .and_then(|hex| u32::from_str_radix(hex, 16).ok())
    {
        return number.to_string();
    }
    if let Ok(net) = word.parse::<IpNet>() {
        let net = net.trunc();
        return if net.prefix_len() == net.max_prefix_len() {
            net.addr().to_string()
        } else {
            net.to_string()
        };
    }
    let mut items: Vec<&str> = word.trim_matches('"').split(',').collect();
    items.sort_unstable();
    items.join(",")
}
