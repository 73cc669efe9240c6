//! The one question that a stub asks, and what it wants of the answer. What a message is made of is the crate `domain`'s.
//!
//! Source: RFC 1035 §4, RFC 3596, RFC 6891.
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::message::ShortMessage;
use domain::base::wire::ParseError;
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::{A, Aaaa};

use super::{Kind, Resolved};

/// Why an answer cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MalformedAnswer {
    /// It ends too early, or its names point in circles.
    #[error("the answer is cut or damaged")]
    Cut,
    /// Another question's.
    #[error("the answer is to another question")]
    NotOurs,
}

impl From<ParseError> for MalformedAnswer {
    fn from(_: ParseError) -> Self {
        Self::Cut
    }
}

impl From<ShortMessage> for MalformedAnswer {
    fn from(_: ShortMessage) -> Self {
        Self::Cut
    }
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Addresses, or that there are none.
    Whole(Resolved),
    /// Ask again over TCP.
    Truncated,
    /// A code other than "no error" and "no such name".
    Refused(u8),
}

/// A question for the addresses of one name.
#[derive(Debug)]
pub(super) struct Question {
    id: u16,
    name: Name<Vec<u8>>,
    kind: Rtype,
}

impl Question {
    /// `None`: the name cannot be asked for.
    pub(super) fn new(id: u16, name: &str, kind: Kind) -> Option<Self> {
        let name = Name::<Vec<u8>>::from_str(name)
            .ok()
            .filter(|name| !name.is_root())?;
        let kind = match kind {
            Kind::V4 => Rtype::A,
            Kind::V6 => Rtype::AAAA,
        };
        Some(Self { id, name, kind })
    }

    /// The message; with EDNS if `payload` says how many bytes of an answer are taken. `None`: it does not fit, which a name's length does
    /// not allow.
    pub(super) fn encode(&self, payload: Option<u16>) -> Option<Vec<u8>> {
        let mut message = MessageBuilder::new_vec();
        message.header_mut().set_id(self.id);
        message.header_mut().set_rd(true);
        let mut message = message.question();
        message.push((&self.name, self.kind)).ok()?;
        let mut message = message.additional();
        if let Some(bytes) = payload {
            let option = message.opt(|option| {
                option.set_udp_payload_size(bytes);
                Ok(())
            });
            option.ok()?;
        }
        Some(message.finish())
    }

    /// Reads what a server sent. Records of the wanted kind count whatever their name is: a server follows aliases itself.
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Answer, MalformedAnswer> {
        let message = Message::from_octets(bytes)?;
        let header = message.header();
        if header.id() != self.id || !header.qr() || message.header_counts().qdcount() != 1 {
            return Err(MalformedAnswer::NotOurs);
        }
        let question = message.sole_question()?;
        let is_ours =
            question.qname() == &self.name && question.qtype() == self.kind && question.qclass() == Class::IN;
        if !is_ours {
            return Err(MalformedAnswer::NotOurs);
        }
        if header.tc() {
            return Ok(Answer::Truncated);
        }
        match header.rcode() {
            Rcode::NOERROR => self.addresses(&message).map(Answer::Whole),
            Rcode::NXDOMAIN => Ok(Answer::Whole(Resolved::default())),
            code => Ok(Answer::Refused(code.to_int())),
        }
    }

    fn addresses(&self, message: &Message<&[u8]>) -> Result<Resolved, MalformedAnswer> {
        let mut resolved = Resolved::default();
        let mut ttl: Option<u32> = None;
        for record in message.answer()? {
            let record = record?;
            if record.class() != Class::IN {
                continue;
            }
            // Aliases on the way count too: after them another name may be meant.
            let seconds = record.ttl().as_secs();
            ttl = Some(ttl.map_or(seconds, |shortest| shortest.min(seconds)));
            let address = match self.kind {
                Rtype::A => record
                    .to_record::<A>()?
                    .map(|record| IpAddr::from(record.data().addr())),
                _ => record
                    .to_record::<Aaaa>()?
                    .map(|record| IpAddr::from(record.data().addr())),
            };
            resolved.addresses.extend(address);
        }
        resolved.ttl = Duration::from_secs(ttl.unwrap_or(0).into());
        Ok(resolved)
    }
}
