//! Netlink: messages, their attributes, and a socket that asks one question at a time.
//!
//! Knows no subsystem; the modules below know one each. Every number of a header is in the machine's byte
//! order; what a subsystem puts into an attribute is its business. Answers come from the kernel, yet are read
//! as if from a stranger: short or odd ones end the reading. Source: netlink(7), linux/netlink.h.

pub(crate) mod attribute;
pub(crate) mod conntrack;
pub(crate) mod link;
pub(crate) mod nft;

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// The kernel fills at most 32 KiB of a dump at once (netlink(7), `NLMSG_GOODSIZE`).
const RECEIVE_BYTES: usize = 64 * 1024;
/// The kernel answers while it is asked; a second means that it will not.
const PATIENCE_SECONDS: i64 = 2;

/// One message: kind, flags and what follows the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) body: Vec<u8>,
}

/// What the kernel said to a numbered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Position in what was sent, from 0.
    pub(crate) message: usize,
    pub(crate) errno: Errno,
}

/// A netlink socket of one protocol, in the network namespace of the thread that opened it.
pub(crate) struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    /// # Errors
    /// `EPROTONOSUPPORT` where the kernel lacks the protocol; what a seccomp filter answers instead.
    pub(crate) fn open(protocol: SockProtocol) -> Result<Self, Errno> {
        let descriptor = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        setsockopt(
            &descriptor,
            sockopt::ReceiveTimeout,
            &TimeVal::new(PATIENCE_SECONDS, 0),
        )?;
        Ok(Socket { descriptor })
    }

    /// Sends one message and waits for the kernel's verdict. [`ACK`] is added.
    ///
    /// # Errors
    /// The verdict; `EAGAIN` when there is none in time.
    pub(crate) fn ask(&self, message: &Message) -> Result<(), Errno> {
        match self.exchange(std::slice::from_ref(message), 1)?.first() {
            Some(refusal) => Err(refusal.errno),
            None => Ok(()),
        }
    }

    /// Sends `messages` in one datagram; reads until `acknowledgements` good verdicts or any bad one came,
    /// then whatever else is there. Messages that are to be acknowledged have [`ACK`] set, but for a lone one.
    ///
    /// # Errors
    /// Those of the socket; what the kernel thought of the messages is the value.
    pub(crate) fn exchange(
        &self,
        messages: &[Message],
        acknowledgements: usize,
    ) -> Result<Vec<Refusal>, Errno> {
        let alone = if messages.len() == 1 { ACK } else { 0 };
        let mut datagram = Vec::new();
        for (sequence, message) in (0u32..).zip(messages) {
            put(message, sequence, alone, &mut datagram)?;
        }
        self.make_room(datagram.len());
        self.send(&datagram)?;
        let mut refusals = Vec::new();
        let mut good = 0;
        while good < acknowledgements && refusals.is_empty() {
            self.verdicts(MsgFlags::empty(), &mut good, &mut refusals)?;
        }
        // Several messages may be refused at once, each in a datagram of its own.
        while self
            .verdicts(MsgFlags::MSG_DONTWAIT, &mut good, &mut refusals)
            .is_ok()
        {}
        Ok(refusals)
    }

    /// Sends one message and gives back the answers, header cut off, until the kernel says that it is done.
    ///
    /// # Errors
    /// The kernel's; `EAGAIN` when it stops answering.
    pub(crate) fn dump(&self, message: &Message) -> Result<Vec<(u16, Vec<u8>)>, Errno> {
        let mut datagram = Vec::new();
        put(message, 0, 0, &mut datagram)?;
        self.send(&datagram)?;
        let mut answers = Vec::new();
        loop {
            for answer in split(&self.receive(MsgFlags::empty())?) {
                match answer.kind {
                    DONE => return Ok(answers),
                    ERROR => return verdict(answer.body).ok_or(Errno::EPROTO)?.map(|()| answers),
                    kind => answers.push((kind, answer.body.to_vec())),
                }
            }
            if message.flags & DUMP != DUMP {
                return Ok(answers);
            }
        }
    }

    fn verdicts(&self, flags: MsgFlags, good: &mut usize, refusals: &mut Vec<Refusal>) -> Result<(), Errno> {
        for answer in split(&self.receive(flags)?) {
            if answer.kind != ERROR {
                continue;
            }
            match verdict(answer.body).ok_or(Errno::EPROTO)? {
                Ok(()) => *good += 1,
                Err(errno) => refusals.push(Refusal {
                    message: answer.sequence as usize,
                    errno,
                }),
            }
        }
        Ok(())
    }

    /// A batch is one datagram and must fit the send buffer; that it does not is said by `send`.
    fn make_room(&self, bytes: usize) {
        let wanted = bytes.saturating_mul(2);
        if wanted > 128 * 1024 && setsockopt(&self.descriptor, sockopt::SndBufForce, &wanted).is_err() {
            let _ = setsockopt(&self.descriptor, sockopt::SndBuf, &wanted);
        }
    }

    fn send(&self, datagram: &[u8]) -> Result<(), Errno> {
        send(self.descriptor.as_raw_fd(), datagram, MsgFlags::empty()).map(drop)
    }

    fn receive(&self, flags: MsgFlags) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; RECEIVE_BYTES];
        let length = recv(self.descriptor.as_raw_fd(), &mut bytes, flags)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

struct Answer<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

fn put(message: &Message, sequence: u32, more_flags: u16, datagram: &mut Vec<u8>) -> Result<(), Errno> {
    let length = u32::try_from(HEADER + message.body.len()).map_err(|_| Errno::EMSGSIZE)?;
    datagram.extend(length.to_ne_bytes());
    datagram.extend(message.kind.to_ne_bytes());
    datagram.extend((message.flags | REQUEST | more_flags).to_ne_bytes());
    datagram.extend(sequence.to_ne_bytes());
    datagram.extend(0u32.to_ne_bytes()); // the sender: the kernel fills it in
    datagram.extend(&message.body);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
    Ok(())
}

/// Messages of one datagram; a length that does not fit ends it.
fn split(datagram: &[u8]) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    let mut rest = datagram;
    while let Some(length) = u32_at(rest, 0) {
        let length = length as usize;
        let (Some(whole), true) = (rest.get(..length), length >= HEADER) else {
            break;
        };
        let kind = whole.get(4..6).and_then(|bytes| bytes.try_into().ok());
        let (Some(kind), Some(sequence), Some(body)) = (kind, u32_at(whole, 8), whole.get(HEADER..)) else {
            break;
        };
        answers.push(Answer {
            kind: u16::from_ne_bytes(kind),
            sequence,
            body,
        });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// What an NLMSG_ERROR message says: 0 is an acknowledgement. Netfilter also answers with the kernel's own
/// ENOTSUPP (524), which has no name outside of it.
fn verdict(body: &[u8]) -> Option<Result<(), Errno>> {
    let code = u32_at(body, 0)?.cast_signed();
    Some(match Errno::from_raw(code.wrapping_neg()) {
        _ if code == 0 => Ok(()),
        Errno::UnknownErrno => Err(Errno::EOPNOTSUPP),
        errno => Err(errno),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Message {
        Message {
            kind,
            flags: ACK,
            body: body.to_vec(),
        }
    }

    #[test]
    fn messages_are_padded_numbered_and_split_again() {
        let mut datagram = Vec::new();
        put(&message(7, &[1, 2, 3, 4, 5]), 0, 0, &mut datagram).unwrap();
        put(&message(8, &[]), 1, 0, &mut datagram).unwrap();
        assert_eq!(datagram.len(), 24 + 16);
        let answers = split(&datagram);
        let seen: Vec<_> = answers.iter().map(|a| (a.kind, a.sequence, a.body)).collect();
        assert_eq!(seen, [(7, 0, [1, 2, 3, 4, 5].as_slice()), (8, 1, &[])]);
    }

    #[test]
    fn odd_lengths_end_the_reading() {
        let check = |bytes: &[u8], expected: usize| assert_eq!(split(bytes).len(), expected, "{bytes:?}");
        check(&[], 0);
        check(&[1, 0], 0);
        check(&[0; 16], 0); // length 0
        check(&[15; 40], 0); // longer than the datagram
    }

    #[test]
    fn an_unknown_kind_of_route_message_is_refused_by_the_kernel() {
        let route = Socket::open(SockProtocol::NetlinkRoute).unwrap();
        assert_eq!(route.ask(&message(0xffff, &[0; 16])), Err(Errno::EOPNOTSUPP));
    }
}
