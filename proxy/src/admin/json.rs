//! JSON as Envoy's admin prints it: one space a level, members in the order of the proto's field numbers.
use std::net::SocketAddr;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// The text of a value, with a line end.
pub(super) fn pretty(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(
        &mut out,
        PrettyFormatter::with_indent(b" "),
    ))?;
    out.push(b'\n');
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The proto JSON mapping leaves defaults out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `core.v3.Address`.
#[derive(Serialize)]
pub(super) struct Address {
    socket_address: SocketAddress,
}

#[derive(Serialize)]
struct SocketAddress {
    address: String,
    #[serde(skip_serializing_if = "is_default")]
    port_value: u16,
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            socket_address: SocketAddress {
                address: address.ip().to_string(),
                port_value: address.port(),
            },
        }
    }
}
