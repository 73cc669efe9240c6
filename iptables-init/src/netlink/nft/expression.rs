//! The parts of an nf_tables rule: loads into a register, comparisons, statements, verdicts.
//!
//! One register is enough for every rule here: load, compare, load the next. Addresses and ports are compared
//! as they stand in the packet; what the kernel makes itself (marks, ids, states) is in its own byte order.
//! Source: linux/netfilter/nf_tables.h; the choice and order of parts is that of nft(8), so that `nft list`
//! shows what was meant.

use crate::netlink::attribute::{self, Attributes};

const NAME: u16 = 1;
const DATA: u16 = 2;
const VALUE: u16 = 1;
const VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const VERDICT_CHAIN: u16 = 2;
/// NFT_REG_VERDICT and NFT_REG_1.
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;

const JUMP: i32 = -3;
const RETURN: i32 = -5;
const DROP: i32 = 0;
const ACCEPT: i32 = 1;

/// What can be loaded that is no part of the packet: `enum nft_meta_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meta {
    Mark = 3,
    InInterface = 6,
    OutInterface = 7,
    Uid = 10,
    Gid = 11,
    Family = 15,
    Protocol = 16,
}

/// What connection tracking knows: `enum nft_ct_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tracked {
    State = 0,
    Mark = 3,
    Zone = 17,
}

/// Where in a packet: `enum nft_payload_bases`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Network = 1,
    Transport = 2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    Meta(Meta),
    SetMeta(Meta),
    Tracked(Tracked),
    SetTracked(Tracked),
    Payload {
        header: Header,
        offset: u32,
        bytes: u32,
    },
    Mask(Vec<u8>),
    Equal(Vec<u8>),
    Unequal(Vec<u8>),
    Value(Vec<u8>),
    Counter,
    /// To the port in the register.
    Redirect,
    /// To the port in the register; of which family of packets.
    TransparentProxy {
        family: u8,
    },
    Jump(String),
    Return,
    Drop,
    Accept,
}

impl Expression {
    /// Name and data, as a list element.
    pub(crate) fn attributes(&self) -> Attributes {
        let (name, data) = self.parts();
        Attributes::new().text(NAME, name).nested(DATA, &data)
    }

    /// The kernel's name of the expression type, whose module is `nft_` and this where it is a module.
    pub(crate) fn parts(&self) -> (&'static str, Attributes) {
        let none = Attributes::new;
        match self {
            Expression::Meta(key) => ("meta", none().u32(2, *key as u32).u32(1, REGISTER)),
            Expression::SetMeta(key) => ("meta", none().u32(2, *key as u32).u32(3, REGISTER)),
            Expression::Tracked(key) => ("ct", none().u32(2, *key as u32).u32(1, REGISTER)),
            Expression::SetTracked(key) => ("ct", none().u32(2, *key as u32).u32(4, REGISTER)),
            Expression::Payload {
                header,
                offset,
                bytes,
            } => ("payload", payload(*header, *offset, *bytes)),
            Expression::Mask(mask) => ("bitwise", bitwise(mask)),
            Expression::Equal(value) => ("cmp", compare(0, value)),
            Expression::Unequal(value) => ("cmp", compare(1, value)),
            Expression::Value(value) => {
                let data = none().bytes(VALUE, value);
                ("immediate", none().u32(1, REGISTER).nested(2, &data))
            }
            Expression::Counter => ("counter", none()),
            Expression::Redirect => ("redir", none().u32(1, REGISTER)),
            Expression::TransparentProxy { family } => {
                ("tproxy", none().u32(1, u32::from(*family)).u32(3, REGISTER))
            }
            Expression::Jump(chain) => ("immediate", verdict(JUMP, Some(chain))),
            Expression::Return => ("immediate", verdict(RETURN, None)),
            Expression::Drop => ("immediate", verdict(DROP, None)),
            Expression::Accept => ("immediate", verdict(ACCEPT, None)),
        }
    }
}

fn payload(header: Header, offset: u32, bytes: u32) -> Attributes {
    Attributes::new()
        .u32(1, REGISTER)
        .u32(2, header as u32)
        .u32(3, offset)
        .u32(4, bytes)
}

fn compare(operator: u32, value: &[u8]) -> Attributes {
    Attributes::new()
        .u32(1, REGISTER)
        .u32(2, operator)
        .nested(3, &Attributes::new().bytes(VALUE, value))
}

/// `register & mask`, the exclusive-or being with zeroes.
fn bitwise(mask: &[u8]) -> Attributes {
    Attributes::new()
        .u32(1, REGISTER)
        .u32(2, REGISTER)
        .u32(3, mask.len() as u32)
        .nested(4, &Attributes::new().bytes(VALUE, mask))
        .nested(5, &Attributes::new().bytes(VALUE, &vec![0; mask.len()]))
}

fn verdict(code: i32, chain: Option<&str>) -> Attributes {
    let mut verdict = Attributes::new().u32(VERDICT_CODE, code.cast_unsigned());
    if let Some(chain) = chain {
        verdict = verdict.text(VERDICT_CHAIN, chain);
    }
    let data = Attributes::new().nested(VERDICT, &verdict);
    Attributes::new().u32(1, VERDICT_REGISTER).nested(2, &data)
}

/// The list element of [`parts`].
pub(crate) fn element(name: &str, data: &[u8]) -> Attributes {
    Attributes::new()
        .text(NAME, name)
        .bytes(DATA | attribute::NESTED, data)
}

/// Name and data of a list element.
pub(crate) fn parts(element: &[u8]) -> Option<(String, Vec<u8>)> {
    let data = attribute::find(element, DATA).unwrap_or_default();
    Some((attribute::find_text(element, NAME)?, data.to_vec()))
}

/// The packet mark that listed expressions compare with.
pub(crate) fn mark_compared(expressions: &[(String, Vec<u8>)]) -> Option<u32> {
    expressions.windows(2).find_map(|pair| {
        let [(loads, load), (compares, compare)] = pair else {
            return None;
        };
        let is_mark = loads == "meta" && attribute::find_u32(load, 2) == Some(Meta::Mark as u32);
        let value = attribute::find(attribute::find(compare, 3)?, VALUE)?;
        (is_mark && compares == "cmp").then_some(u32::from_ne_bytes(value.try_into().ok()?))
    })
}
