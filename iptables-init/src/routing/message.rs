//! One rtnetlink question and its answer. Source: netlink(7), rtnetlink(7).

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// The kernel fills at most 32 KiB of a dump at once.
const RECEIVE_BYTES: usize = 32 * 1024;

pub(super) struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl Message {
    /// `header` is the fixed part that belongs to `kind`; its length is a multiple of four.
    pub(super) fn new(kind: u16, header: &[u8]) -> Self {
        Message {
            kind,
            body: header.to_vec(),
        }
    }

    /// Adds an attribute. Values here have four or sixteen bytes, so none needs padding.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(4);
        self.body.extend(length.to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self
    }

    /// Asks for what must not exist yet.
    ///
    /// # Errors
    /// The kernel's; EPROTO for an answer that is not one.
    pub(super) fn create(&self) -> Result<(), Errno> {
        self.acknowledged(NLM_F_CREATE | NLM_F_EXCL)
    }

    /// # Errors
    /// The kernel's; EPROTO for an answer that is not one.
    pub(super) fn ask(&self) -> Result<(), Errno> {
        self.acknowledged(0)
    }

    fn acknowledged(&self, flags: u16) -> Result<(), Errno> {
        let netlink = self.send(flags | NLM_F_ACK)?;
        let answer = receive(&netlink)?;
        let (kind, body) = messages(&answer).next().ok_or(Errno::EPROTO)?;
        verdict(kind, body).ok_or(Errno::EPROTO)?
    }

    /// All answers of kind `kind`: what follows their netlink headers.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn dump(&self, kind: u16) -> Result<Vec<Vec<u8>>, Errno> {
        let netlink = self.send(NLM_F_DUMP)?;
        let mut found = Vec::new();
        loop {
            let answer = receive(&netlink)?;
            for (answered, body) in messages(&answer) {
                if answered == NLMSG_DONE {
                    return Ok(found);
                }
                if let Some(verdict) = verdict(answered, body) {
                    return verdict.map(|()| found);
                }
                if answered == kind {
                    found.push(body.to_vec());
                }
            }
        }
    }

    fn send(&self, flags: u16) -> Result<OwnedFd, Errno> {
        let netlink = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        let length = u32::try_from(HEADER + self.body.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend([0; 8]); // sequence number, sender
        bytes.extend(&self.body);
        send(netlink.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(netlink)
    }
}

fn receive(netlink: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; RECEIVE_BYTES];
    let length = recv(netlink.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Kind and body of each message of a datagram; a length that does not fit ends it.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok()?;
        let message = rest.get(..length)?;
        let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, message.get(HEADER..)?))
    })
}

/// What an NLMSG_ERROR says: its code is 0 or a negative errno.
fn verdict(kind: u16, body: &[u8]) -> Option<Result<(), Errno>> {
    if kind != NLMSG_ERROR {
        return None;
    }
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    Some(match code {
        0 => Ok(()),
        code => Err(Errno::from_raw(code.wrapping_neg())),
    })
}

/// The value of the first attribute of `kind` in `attributes`.
pub(super) fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let found = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_lengths_end_the_reading() {
        let check =
            |bytes: &[u8], expected: usize| assert_eq!(messages(bytes).count(), expected, "{bytes:?}");
        check(&[], 0);
        check(&[1, 0], 0);
        check(&[0; 16], 0);
        check(&[17; 40], 0);
        assert_eq!(attribute(&[3, 0, 1, 0], 1), None);
        assert_eq!(attribute(&[9, 0, 1, 0, 5], 1), None);
        assert_eq!(
            attribute(&[5, 0, 1, 0, 5, 0, 0, 0, 5, 0, 2, 0, 6], 2),
            Some([6].as_slice())
        );
    }
}
