//! nf_tables without a program: our native tables, read and replaced over netlink.
//!
//! One batch is one transaction: the kernel takes all of it or nothing, whatever becomes of this process.

use std::fmt::Write as _;

use nix::errno::Errno;

use crate::netlink::Message;
use crate::netlink::nft::{self as messages, Chain, Hook, INET, OUTPUT, PREROUTING, encode, expression};
use crate::nft::words;
use crate::plan::NativeChain;
use crate::rule::{Chain as Name, Table};
use crate::saved::Verdict;

/// How names of our tables begin.
const PREFIX: &str = "istio-proxy-";

/// The kernel does not take our tables.
#[derive(Debug, thiserror::Error)]
#[error("nf_tables, {what}: {errno}{}", advice(*.errno))]
pub struct KernelError {
    /// Which part was refused.
    pub what: String,
    pub errno: Errno,
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            "; it takes the capability NET_ADMIN, and a table that nobody else owns"
        }
        Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT | Errno::EINVAL => {
            "; the kernel lacks it: load on the node: nf_tables nft_chain_nat nft_redir nft_ct nft_tproxy"
        }
        _ => "",
    }
}

impl KernelError {
    /// Whether the node's kernel lacks a part.
    pub fn is_missing_support(&self) -> bool {
        !matches!(self.errno, Errno::EPERM | Errno::EACCES) && !advice(self.errno).is_empty()
    }
}

/// Our native tables as they were found.
pub struct Kernel {
    tables: Vec<Found>,
}

struct Found {
    name: String,
    chains: Vec<Chain>,
    rules: Vec<messages::Rule>,
}

impl Kernel {
    /// Lists our tables in this thread's network namespace.
    ///
    /// # Errors
    /// `EPERM` without NET_ADMIN; `EINVAL` and `EPROTONOSUPPORT` without nf_tables.
    pub fn look() -> Result<Self, KernelError> {
        let error = |errno| KernelError {
            what: "listing tables".to_owned(),
            errno,
        };
        let all = messages::tables().map_err(error)?;
        let ours = all
            .into_iter()
            .filter(|table| table.family == INET && table.name.starts_with(PREFIX));
        let mut tables = Vec::new();
        let chains = messages::chains().map_err(error)?;
        for table in ours {
            let own = |chain: &&Chain| chain.family == INET && chain.table == table.name;
            tables.push(Found {
                chains: chains.iter().filter(own).cloned().collect(),
                rules: messages::rules(INET, &table.name).map_err(error)?,
                name: table.name,
            });
        }
        Ok(Kernel { tables })
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Tables, chains and how many rules each has.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            for chain in &table.chains {
                let rules = table.rules.iter().filter(|rule| rule.chain == chain.name).count();
                let _ = writeln!(
                    text,
                    "table inet {}, chain {}: {rules} rules",
                    table.name, chain.name
                );
            }
        }
        text
    }

    /// TPROXY mode's mark, if these tables are of that mode: it is what its first rule for inbound packets asks for.
    pub fn tproxy_mark(&self) -> Option<u32> {
        let mangle = Table::Mangle.native_name();
        let table = self.tables.iter().find(|table| table.name == mangle)?;
        let inbound = Name::IstioInbound.native_name();
        let first = table.rules.iter().find(|rule| rule.chain == inbound)?;
        expression::mark_compared(&first.expressions)
    }

    /// Compares chains, their hooks, and rules in their order. Counts of packets do not matter.
    pub fn compare(&self, wanted: &[NativeChain]) -> Verdict {
        if self.tables.is_empty() {
            return Verdict::Absent;
        }
        let unwanted = self
            .tables
            .iter()
            .find(|found| !wanted.iter().any(|chain| chain.table.native_name() == found.name));
        if let Some(found) = unwanted {
            return Verdict::Differs(format!("table {} is not wanted", found.name));
        }
        for table in Table::ALL {
            let chains: Vec<&NativeChain> = wanted.iter().filter(|chain| chain.table == table).collect();
            if chains.is_empty() {
                continue;
            }
            let name = table.native_name();
            let Some(found) = self.tables.iter().find(|found| found.name == name) else {
                return Verdict::Differs(format!("table {name} is missing"));
            };
            if let Some(difference) = found.difference(&chains) {
                return Verdict::Differs(difference);
            }
        }
        Verdict::Equal
    }

    /// Replaces all our tables by `wanted`.
    ///
    /// # Errors
    /// The part that the kernel refuses; nothing has changed then.
    pub fn replace(&self, wanted: &[NativeChain]) -> Result<(), KernelError> {
        let mut batch = cleared(&self.tables, wanted);
        for table in Table::ALL {
            let chains: Vec<&NativeChain> = wanted.iter().filter(|chain| chain.table == table).collect();
            if !chains.is_empty() {
                batch.extend(table_messages(table, &chains));
            }
        }
        commit(batch)
    }

    /// Brings back the tables that were found, in place of what is there now.
    ///
    /// # Errors
    /// The part that the kernel refuses.
    pub fn put_back(&self) -> Result<(), KernelError> {
        let mut batch = cleared(&Kernel::look()?.tables, &[]);
        for table in &self.tables {
            let part = || format!("table {} as it was", table.name);
            batch.push((messages::new_table(INET, &table.name), part()));
            for chain in &table.chains {
                batch.push((messages::new_chain_like(chain), part()));
            }
            for rule in &table.rules {
                batch.push((messages::new_rule_like(INET, &table.name, rule), part()));
            }
        }
        commit(batch)
    }
}

impl Found {
    fn difference(&self, wanted: &[&NativeChain]) -> Option<String> {
        let unwanted = self
            .chains
            .iter()
            .find(|chain| !wanted.iter().any(|w| w.chain.native_name() == chain.name));
        if let Some(chain) = unwanted {
            return Some(format!("chain {} in {} is not wanted", chain.name, self.name));
        }
        for NativeChain { table, chain, rules } in wanted {
            let place = format!("{} {}", self.name, chain.native_name());
            let Some(found) = self.chains.iter().find(|found| found.name == chain.native_name()) else {
                return Some(format!("chain {place} is missing"));
            };
            let hook = hook(*table, *chain).map(|hook| (hook.kind.to_owned(), hook.number, hook.priority));
            if found.hook != hook {
                return Some(format!("chain {place} hangs on {:?}, not {hook:?}", found.hook));
            }
            let found: Vec<&messages::Rule> = self
                .rules
                .iter()
                .filter(|rule| rule.chain == found.name)
                .collect();
            let encoded = rules
                .iter()
                .flat_map(|rule| encode::rules(rule).into_iter().map(move |e| (rule, e)));
            let encoded: Vec<_> = encoded.collect();
            if found.len() != encoded.len() {
                return Some(format!(
                    "{} rules in {place}, {} wanted",
                    found.len(),
                    encoded.len()
                ));
            }
            let differs = found
                .iter()
                .zip(&encoded)
                .find(|(found, (_, wanted))| !messages::is_same(found, wanted));
            if let Some((_, (rule, _))) = differs {
                return Some(format!("{place} has another rule in place of `{}`", words(rule)));
            }
        }
        None
    }
}

/// Messages, each with what it is about.
type Batch = Vec<(Message, String)>;

/// Every table of ours that is there, and every one that is wanted, is made if it is missing, and deleted: so it
/// is gone, whoever made or deleted it since it was listed.
fn cleared(found: &[Found], wanted: &[NativeChain]) -> Batch {
    let mut names: Vec<&str> = found.iter().map(|table| table.name.as_str()).collect();
    names.extend(wanted.iter().map(|chain| chain.table.native_name()));
    names.sort_unstable();
    names.dedup();
    let of_table = |name: &str| {
        [
            (messages::new_table(INET, name), format!("table {name}")),
            (
                messages::delete_table(INET, name),
                format!("table {name}, its deletion"),
            ),
        ]
    };
    names.into_iter().flat_map(of_table).collect()
}

fn table_messages(table: Table, chains: &[&NativeChain]) -> Batch {
    let name = table.native_name();
    let mut batch = vec![(messages::new_table(INET, name), format!("table {name}"))];
    for NativeChain { chain, .. } in chains {
        let own = chain.native_name();
        let message = messages::new_chain(INET, name, own, hook(table, *chain));
        batch.push((message, format!("chain {name} {own}")));
    }
    for NativeChain { chain, rules, .. } in chains {
        let own = chain.native_name();
        for rule in rules {
            for expressions in encode::rules(rule) {
                let message = messages::new_rule(INET, name, own, &expressions);
                batch.push((message, format!("rule {name} {own} {}", words(rule))));
            }
        }
    }
    batch
}

fn hook(table: Table, chain: Name) -> Option<Hook> {
    let number = match chain {
        Name::Prerouting => PREROUTING,
        Name::Output => OUTPUT,
        _ => return None,
    };
    Some(Hook {
        kind: table.chain_type(chain),
        number,
        priority: table.priority(),
    })
}

fn commit(batch: Batch) -> Result<(), KernelError> {
    let (all, about): (Vec<Message>, Vec<String>) = batch.into_iter().unzip();
    messages::commit(&all).map_err(|refusal| KernelError {
        what: about
            .get(refusal.message)
            .cloned()
            .unwrap_or_else(|| "the batch".to_owned()),
        errno: refusal.errno,
    })
}
