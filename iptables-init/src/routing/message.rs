//! One rtnetlink question and its answer. Source: rtnetlink(7).

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use crate::netlink::attribute::Attributes;
pub(super) use crate::netlink::attribute::find as attribute;
use crate::netlink::{self, CREATE, DUMP, EXCLUSIVE, Socket};

pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

pub(super) struct Message {
    kind: u16,
    header: Vec<u8>,
    attributes: Attributes,
}

impl Message {
    /// `header` is the fixed part that belongs to `kind`; its length is a multiple of four.
    pub(super) fn new(kind: u16, header: &[u8]) -> Self {
        Message {
            kind,
            header: header.to_vec(),
            attributes: Attributes::new(),
        }
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.attributes = self.attributes.bytes(kind, value);
        self
    }

    /// Asks for what must not exist yet.
    ///
    /// # Errors
    /// The kernel's; EPROTO for an answer that is not one.
    pub(super) fn create(self) -> Result<(), Errno> {
        open()?.ask(&self.flagged(CREATE | EXCLUSIVE))
    }

    /// # Errors
    /// The kernel's; EPROTO for an answer that is not one.
    pub(super) fn ask(self) -> Result<(), Errno> {
        open()?.ask(&self.flagged(0))
    }

    /// All answers of kind `kind`: what follows their netlink headers.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn dump(self, kind: u16) -> Result<Vec<Vec<u8>>, Errno> {
        let answers = open()?.dump(&self.flagged(DUMP))?;
        let of_kind = |(found, body): (u16, Vec<u8>)| (found == kind).then_some(body);
        Ok(answers.into_iter().filter_map(of_kind).collect())
    }

    fn flagged(self, flags: u16) -> netlink::Message {
        let mut body = self.header;
        body.extend(self.attributes.into_bytes());
        netlink::Message {
            kind: self.kind,
            flags,
            body,
        }
    }
}

fn open() -> Result<Socket, Errno> {
    Socket::open(SockProtocol::NetlinkRoute)
}
