//! nf_tables messages: tables, chains, rules, and the batch that the kernel takes whole or not at all.
//!
//! Knows the shape of messages, not which rules anybody wants; [`expression`] has the parts of a rule.
//! A batch without its end is checked by the kernel and then undone: that is how a question is asked without
//! leaving a trace. Source: linux/netfilter/nf_tables.h and nfnetlink.h; nf_tables_api.c, nfnetlink.c.

pub(crate) mod encode;
pub(crate) mod expression;

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::attribute::{self, Attributes};
use super::{ACK, APPEND, CREATE, DUMP, Message, Refusal, Socket};
use expression::Expression;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;

/// Families of tables.
pub(crate) const INET: u8 = 1;

const POLICY_ACCEPT: u32 = 1;

/// Where a base chain is called from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    /// `filter`, `nat` or `route`.
    pub(crate) kind: &'static str,
    /// NF_INET_PRE_ROUTING (0), NF_INET_LOCAL_OUT (3).
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

pub(crate) const PREROUTING: u32 = 0;
pub(crate) const OUTPUT: u32 = 3;

/// A table as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) family: u8,
    pub(crate) name: String,
}

/// A chain as listed; `hook` of base chains only: type, number, priority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) hook: Option<(String, u32, i32)>,
}

/// A rule as listed: its expressions, still as attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) chain: String,
    pub(crate) expressions: Vec<(String, Vec<u8>)>,
}

/// Creates the table unless it is there.
pub(crate) fn new_table(family: u8, table: &str) -> Message {
    let attributes = Attributes::new().text(TABLE_NAME, table);
    message(NEW_TABLE, CREATE, family, 0, attributes)
}

/// Deletes the table with all that is in it; it must be there.
pub(crate) fn delete_table(family: u8, table: &str) -> Message {
    message(
        DELETE_TABLE,
        0,
        family,
        0,
        Attributes::new().text(TABLE_NAME, table),
    )
}

/// Creates the chain unless it is there.
pub(crate) fn new_chain(family: u8, table: &str, chain: &str, hook: Option<Hook>) -> Message {
    let hook = hook.map(|hook| (hook.kind, hook.number, hook.priority));
    chain_message(family, table, chain, hook)
}

/// Creates a chain that was listed.
pub(crate) fn new_chain_like(chain: &Chain) -> Message {
    let hook = chain
        .hook
        .as_ref()
        .map(|(kind, number, priority)| (kind.as_str(), *number, *priority));
    chain_message(chain.family, &chain.table, &chain.name, hook)
}

fn chain_message(family: u8, table: &str, chain: &str, hook: Option<(&str, u32, i32)>) -> Message {
    let mut attributes = Attributes::new().text(CHAIN_TABLE, table).text(CHAIN_NAME, chain);
    if let Some((kind, number, priority)) = hook {
        let place = Attributes::new()
            .u32(HOOK_NUMBER, number)
            .u32(HOOK_PRIORITY, priority.cast_unsigned());
        attributes = attributes
            .nested(CHAIN_HOOK, &place)
            .u32(CHAIN_POLICY, POLICY_ACCEPT)
            .text(CHAIN_TYPE, kind);
    }
    message(NEW_CHAIN, CREATE, family, 0, attributes)
}

/// Appends a rule.
pub(crate) fn new_rule(family: u8, table: &str, chain: &str, expressions: &[Expression]) -> Message {
    let elements = expressions.iter().map(Expression::attributes);
    rule_message(family, table, chain, elements)
}

/// Appends a rule that was listed, its counts of packets included.
pub(crate) fn new_rule_like(family: u8, table: &str, rule: &Rule) -> Message {
    let elements = rule
        .expressions
        .iter()
        .map(|(name, data)| expression::element(name, data));
    rule_message(family, table, &rule.chain, elements)
}

fn rule_message(family: u8, table: &str, chain: &str, elements: impl Iterator<Item = Attributes>) -> Message {
    let list = elements.fold(Attributes::new(), |list, element| {
        list.nested(LIST_ELEMENT, &element)
    });
    let attributes = Attributes::new()
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, chain)
        .nested(RULE_EXPRESSIONS, &list);
    message(NEW_RULE, CREATE | APPEND, family, 0, attributes)
}

/// Whether a listed rule is what `wanted` would make. The kernel lists more than it was told (counts, defaults).
pub(crate) fn is_same(found: &Rule, wanted: &[Expression]) -> bool {
    found.expressions.len() == wanted.len()
        && found
            .expressions
            .iter()
            .zip(wanted)
            .all(|((name, data), wanted)| {
                let (wanted_name, wanted_data) = wanted.parts();
                name == wanted_name && attribute::holds(data, wanted_data.as_bytes())
            })
}

/// Has the kernel take `messages` as one: all of them, or none if any is refused.
///
/// # Errors
/// The first refusal; its position is that in `messages`.
pub(crate) fn commit(messages: &[Message]) -> Result<(), Refusal> {
    batch(messages, true)
}

/// Has the kernel look at `messages` as [`commit`] does, and forget them. Needs the same capability.
///
/// # Errors
/// As [`commit`].
pub(crate) fn check(messages: &[Message]) -> Result<(), Refusal> {
    batch(messages, false)
}

fn batch(messages: &[Message], commit: bool) -> Result<(), Refusal> {
    let Some((last, most)) = messages.split_last() else {
        return Ok(());
    };
    let mut whole = vec![message_of_batch(BATCH_BEGIN)];
    whole.extend(most.iter().cloned());
    // The kernel says yes to a message only after the whole batch went well.
    whole.push(Message {
        flags: last.flags | ACK,
        ..last.clone()
    });
    if commit {
        whole.push(message_of_batch(BATCH_END));
    }
    let here = |errno| Refusal { message: 0, errno };
    let refusals = open().map_err(here)?.exchange(&whole, 1).map_err(here)?;
    match refusals.into_iter().min_by_key(|refusal| refusal.message) {
        None => Ok(()),
        Some(refusal) => Err(Refusal {
            message: refusal.message.saturating_sub(1),
            ..refusal
        }),
    }
}

/// All tables of this network namespace.
///
/// # Errors
/// The kernel's: `EPERM` without NET_ADMIN, `EINVAL` without nf_tables.
pub(crate) fn tables() -> Result<Vec<Table>, Errno> {
    let answers = list(GET_TABLE, 0, Attributes::new())?;
    let table = |(family, body): &(u8, Vec<u8>)| {
        Some(Table {
            family: *family,
            name: attribute::find_text(body, TABLE_NAME)?,
        })
    };
    Ok(answers.iter().filter_map(table).collect())
}

/// All chains of this network namespace.
///
/// # Errors
/// As [`tables`].
pub(crate) fn chains() -> Result<Vec<Chain>, Errno> {
    let answers = list(GET_CHAIN, 0, Attributes::new())?;
    Ok(answers
        .iter()
        .filter_map(|(family, body)| chain(*family, body))
        .collect())
}

fn chain(family: u8, body: &[u8]) -> Option<Chain> {
    let hook = attribute::find(body, CHAIN_HOOK).and_then(|place| {
        let number = attribute::find_u32(place, HOOK_NUMBER)?;
        let priority = attribute::find_u32(place, HOOK_PRIORITY)?.cast_signed();
        Some((attribute::find_text(body, CHAIN_TYPE)?, number, priority))
    });
    Some(Chain {
        family,
        table: attribute::find_text(body, CHAIN_TABLE)?,
        name: attribute::find_text(body, CHAIN_NAME)?,
        hook,
    })
}

/// Rules of `table`, chain by chain, in order.
///
/// # Errors
/// As [`tables`].
pub(crate) fn rules(family: u8, table: &str) -> Result<Vec<Rule>, Errno> {
    let answers = list(GET_RULE, family, Attributes::new().text(RULE_TABLE, table))?;
    let rule = |(_, body): &(u8, Vec<u8>)| {
        let list = attribute::find(body, RULE_EXPRESSIONS)?;
        Some(Rule {
            chain: attribute::find_text(body, RULE_CHAIN)?,
            expressions: attribute::each(list)
                .filter_map(|(_, element)| expression::parts(element))
                .collect(),
        })
    };
    Ok(answers.iter().filter_map(rule).collect())
}

/// Family and attributes of each answer.
fn list(kind: u16, family: u8, attributes: Attributes) -> Result<Vec<(u8, Vec<u8>)>, Errno> {
    let answers = open()?.dump(&message(kind, DUMP, family, 0, attributes))?;
    let split = |(_, body): (u16, Vec<u8>)| {
        let attributes = body.get(4..)?.to_vec();
        Some((*body.first()?, attributes))
    };
    Ok(answers.into_iter().filter_map(split).collect())
}

fn open() -> Result<Socket, Errno> {
    Socket::open(SockProtocol::NetlinkNetFilter)
}

fn message_of_batch(kind: u16) -> Message {
    Message {
        kind,
        ..message(0, 0, 0, SUBSYSTEM, Attributes::new())
    }
}

/// struct nfgenmsg (family, version 0, resource in network byte order), then attributes.
fn message(kind: u16, flags: u16, family: u8, resource: u16, attributes: Attributes) -> Message {
    let mut body = vec![family, 0];
    body.extend(resource.to_be_bytes());
    body.extend(attributes.into_bytes());
    Message {
        kind: SUBSYSTEM << 8 | kind,
        flags,
        body,
    }
}
