//! Settings of sockets that the kernel knows. Source: envoy/config/core/v3/{socket_option,address}.proto.
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{self as pb, socket_option};

use crate::cluster::TcpKeepalive;
use crate::field::{FieldPath, Rejection, choices, verdicts};
use crate::scalar::Wrapped;

/// An option of TCP sockets, by number.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketOption {
    /// As for `setsockopt`, e.g. 6 for TCP.
    pub option_level: i32,
    /// As for `setsockopt`.
    pub option_name: i32,
    /// The bytes of its value.
    pub option_bytes: Vec<u8>,
    /// When it is set.
    pub set_when: SocketState,
    /// Only sockets of this version of IP have it.
    pub only_v6: Option<bool>,
}

/// Where in its life a socket is. Source: socket_option.proto `SocketState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketState {
    /// Made, without an address.
    Made,
    /// With an address.
    Bound,
    /// Connections come in.
    Listening,
}

/// Level and name of what iptables, ip6tables, arptables and ebtables set through a socket. The kernel writes where their bytes point.
/// Source: linux/netfilter_{ipv4/ip_tables,ipv6/ip6_tables,arp/arp_tables,bridge/ebtables}.h, `*_SO_SET_*`.
const TABLES: [(i32, i32); 8] = [
    (0, 64),
    (0, 65),
    (41, 64),
    (41, 65),
    (0, 96),
    (0, 97),
    (0, 128),
    (0, 129),
];

impl SocketOption {
    /// Converts options; those of datagrams are left out.
    pub(crate) fn list(at: FieldPath<'_>, protos: Vec<pb::SocketOption>) -> Result<Vec<Self>, Rejection> {
        let options = protos.into_iter().enumerate();
        let options = options.map(|(index, proto)| Self::from_proto(&at.index(index), proto));
        options.filter_map(Result::transpose).collect()
    }

    fn from_proto(at: &FieldPath<'_>, proto: pb::SocketOption) -> Result<Option<Self>, Rejection> {
        use socket_option::{SocketIpVersion as Ip, SocketState as State};
        verdicts!(at, proto => pb::SocketOption {
            supported { level, name, state, r#type, ip_version, value }
            inert { description: "is for readers of the configuration" }
        });
        choices!(socket_option::Value { supported { IntValue, BufValue } });
        let option_bytes = match at.required(value)? {
            // As C's `int`, of which Envoy takes the lower half as well.
            socket_option::Value::IntValue(value) => (value as i32).to_ne_bytes().to_vec(),
            socket_option::Value::BufValue(bytes) => bytes,
        };
        let number = |field: &'static str, value: i64| {
            let at = at.field(field);
            i32::try_from(value).map_err(|_| at.reject(format!("{value} is no number that the kernel knows")))
        };
        let (option_level, option_name) = (number("level", level)?, number("name", name)?);
        if TABLES.contains(&(option_level, option_name)) {
            return Err(at.field("name").reject(format!(
                "{name} of level {level} replaces firewall tables of the machine; it is no option of a socket"
            )));
        }
        let option = Self {
            option_level,
            option_name,
            option_bytes,
            set_when: match at.field("state").enumeration(state)? {
                State::StatePrebind => SocketState::Made,
                State::StateBound => SocketState::Bound,
                State::StateListening => SocketState::Listening,
            },
            only_v6: match at.field("ip_version").enumeration(ip_version)? {
                Ip::Unspecified => None,
                Ip::Ipv4 => Some(false),
                Ip::Ipv6 => Some(true),
            },
        };
        Ok(is_of_streams(r#type).then_some(option))
    }
}

fn is_of_streams(proto: Option<socket_option::SocketType>) -> bool {
    verdicts!((), proto.unwrap_or_default() => socket_option::SocketType { supported { stream, datagram } });
    stream.is_some() || datagram.is_none()
}

/// Converts keepalive settings; a zero anywhere means none, which is what sockets have anyway.
pub(crate) fn keepalive(proto: Option<pb::TcpKeepalive>) -> Option<TcpKeepalive> {
    verdicts!((), proto? => pb::TcpKeepalive {
        supported { keepalive_probes, keepalive_time, keepalive_interval }
    });
    let seconds = |value: u32| Duration::from_secs(u64::from(value));
    let [probes, time, interval] = [keepalive_probes, keepalive_time, keepalive_interval].map(Wrapped::value);
    let is_off = [probes, time, interval].contains(&Some(0));
    (!is_off).then_some(TcpKeepalive {
        probes,
        time: time.map(seconds),
        interval: interval.map(seconds),
    })
}
