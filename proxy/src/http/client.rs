//! Who sent a request that came by way of others: found before anything in its head is changed.
//! Source: Envoy `ConnectionManagerUtility::mutateRequestHeaders`, `Utility::getLastAddressFromXFF`,
//! `getLastNonTrustedAddressFromXFF`; original_ip_detection extensions `xff` and `custom_header`.
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;
use outrigger_model::hcm::client as model;

use super::edge::{X_FORWARDED_FOR, append_forwarded_for};
use super::local_reply::LocalReply;

/// What is known of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Client {
    /// `None`: nobody says; it is who connected. Without a port, that is 0.
    pub(super) address: Option<SocketAddr>,
    /// The address decides whether it is internal.
    pub(super) may_be_internal: bool,
}

/// A way to find it.
#[derive(Debug)]
pub(super) enum Finder {
    Hops {
        trusted: u32,
        adds_hop: bool,
    },
    Ranges {
        trusted: Vec<IpNet>,
        adds_hop: bool,
    },
    Header {
        name: HeaderName,
        is_trusted: bool,
        refusal: Option<StatusCode>,
    },
}

impl Finder {
    /// `None`: its header has a name that none can have (the model refuses such before).
    pub(super) fn new(config: &model::ClientFinder) -> Option<Self> {
        Some(match config {
            model::ClientFinder::ForwardedFor {
                trusted_hops,
                trusted_ranges,
                keeps_forwarded_for,
            } => {
                let adds_hop = !keeps_forwarded_for;
                match trusted_ranges.is_empty() {
                    true => Self::Hops {
                        trusted: *trusted_hops,
                        adds_hop,
                    },
                    false => Self::Ranges {
                        trusted: trusted_ranges.clone(),
                        adds_hop,
                    },
                }
            }
            model::ClientFinder::Header {
                name,
                is_trusted,
                refusal_status,
            } => Self::Header {
                name: HeaderName::try_from(name.as_str()).ok()?,
                is_trusted: *is_trusted,
                refusal: refusal_status.and_then(|status| StatusCode::from_u16(status).ok()),
            },
        })
    }

    /// The address and whether it decides who is internal.
    fn find(&self, connected: IpAddr, headers: &HeaderMap) -> Result<Option<(IpAddr, bool)>, LocalReply> {
        match self {
            Self::Hops { trusted, .. } => Ok(behind_hops(headers, *trusted)),
            Self::Ranges { trusted, .. } if !is_in(trusted, connected) => Ok(None),
            Self::Ranges { trusted, .. } => Ok(behind_ranges(headers, trusted)),
            Self::Header {
                name,
                is_trusted,
                refusal,
            } => {
                let address = headers.get(name).and_then(|value| value.to_str().ok());
                let address = address.and_then(|text| text.parse().ok());
                match (address, refusal) {
                    (None, Some(status)) => {
                        let details = "rejecting_because_detection_failed";
                        Err(LocalReply::new(*status, None, details, ""))
                    }
                    (address, _) => Ok(address.map(|address| (address, *is_trusted))),
                }
            }
        }
    }

    /// Who connected is added to `x-forwarded-for`, whether the client was found or not.
    fn adds_hop(&self, connected: IpAddr) -> bool {
        match self {
            Self::Hops { adds_hop, .. } => *adds_hop,
            Self::Ranges { trusted, adds_hop } => *adds_hop || !is_in(trusted, connected),
            Self::Header { .. } => false,
        }
    }
}

impl Client {
    fn of(found: Option<(IpAddr, bool)>) -> Self {
        Self {
            address: found.map(|(address, _)| SocketAddr::new(address, 0)),
            may_be_internal: found.is_some_and(|(_, may_be_internal)| may_be_internal),
        }
    }
}

/// By the first that finds it; those before it, and it, may add who connected to `x-forwarded-for`, each once. At the edge there is
/// none, and `trusted_hops` proxies stand before this one.
///
/// # Errors
/// The refusal: it has to be found, and is not.
pub(super) fn find(
    (finders, trusted_hops): (&[Finder], u32),
    uses_remote_address: bool,
    connected: IpAddr,
    headers: &mut HeaderMap,
) -> Result<Client, LocalReply> {
    if uses_remote_address {
        let before = trusted_hops.checked_sub(1);
        return Ok(Client {
            may_be_internal: !headers.contains_key(X_FORWARDED_FOR),
            ..Client::of(before.and_then(|hops| behind_hops(headers, hops)))
        });
    }
    if finders.is_empty() {
        return Ok(Client::of(behind_hops(headers, trusted_hops)));
    }
    for finder in finders {
        let found = finder.find(connected, headers)?;
        if finder.adds_hop(connected) {
            append_forwarded_for(headers, connected);
        }
        if found.is_some() {
            return Ok(Client::of(found));
        }
    }
    Ok(Client::default())
}

fn is_in(ranges: &[IpNet], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

/// The last address but `hops`, and whether it is the only one.
fn behind_hops(headers: &HeaderMap, hops: u32) -> Option<(IpAddr, bool)> {
    let list = forwarded_for(headers)?;
    let mut addresses = list.rsplit(is_comma).skip(usize::try_from(hops).ok()?);
    let address = address(addresses.next()?)?;
    Some((address, hops == 0 && addresses.next().is_none()))
}

/// The last address that is in none of the ranges, else the first, and whether it is the only one.
fn behind_ranges(headers: &HeaderMap, trusted: &[IpNet]) -> Option<(IpAddr, bool)> {
    let list = forwarded_for(headers)?;
    let is_alone = !list.iter().any(is_comma);
    let mut first = None;
    for text in list.rsplit(is_comma) {
        let address = address(text)?;
        first = Some((address, is_alone));
        if !is_in(trusted, address) {
            break;
        }
    }
    first
}

/// As Envoy, several lines are one from here on.
pub(super) fn join_forwarded_for(headers: &mut HeaderMap) {
    let is_one = headers.get_all(X_FORWARDED_FOR).iter().nth(1).is_none();
    if is_one {
        return;
    }
    if let Some(value) = forwarded_for(headers).and_then(|list| HeaderValue::from_bytes(&list).ok()) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

/// All lines of the header as one, which they mostly are. Bytes: what else is in it must not hide the address that counts.
fn forwarded_for(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    let mut lines = headers.get_all(X_FORWARDED_FOR).iter();
    let first = Cow::Borrowed(lines.next()?.as_bytes());
    Some(lines.fold(first, |list, line| {
        Cow::Owned([&list, b",".as_slice(), line.as_bytes()].concat())
    }))
}

fn is_comma(byte: &u8) -> bool {
    *byte == b','
}

fn address(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let lines = lines.iter().map(|line| {
            (
                X_FORWARDED_FOR,
                HeaderValue::from_bytes(line.as_bytes()).expect("a value"),
            )
        });
        HeaderMap::from_iter(lines)
    }

    #[test]
    fn hops_are_counted_from_the_end() {
        let check = |lines: &[&'static str], hops, expected: Option<(&str, bool)>| {
            let expected = expected.map(|(text, alone)| (text.parse().expect("an address"), alone));
            assert_eq!(behind_hops(&headers(lines), hops), expected, "{lines:?} {hops}");
        };
        check(&[], 0, None);
        check(&["1.1.1.1"], 0, Some(("1.1.1.1", true)));
        check(&["1.1.1.1, ::1"], 0, Some(("::1", false)));
        check(&["1.1.1.1, 2.2.2.2"], 1, Some(("1.1.1.1", false)));
        check(&["1.1.1.1", "2.2.2.2"], 1, Some(("1.1.1.1", false)));
        check(&["1.1.1.1, 2.2.2.2"], 2, None);
        check(&["no, 2.2.2.2"], 1, None);
        check(&["1.1.1.1,"], 0, None);
        check(&["\u{fc}, 2.2.2.2"], 0, Some(("2.2.2.2", false)));
        check(&["\u{fc}", "2.2.2.2"], 0, Some(("2.2.2.2", false)));
    }

    #[test]
    fn ranges_are_passed_over_from_the_end() {
        let ranges = ["10.0.0.0/8".parse().expect("a range")];
        let check = |lines: &[&'static str], expected: Option<(&str, bool)>| {
            let expected = expected.map(|(text, alone)| (text.parse().expect("an address"), alone));
            assert_eq!(behind_ranges(&headers(lines), &ranges), expected, "{lines:?}");
        };
        check(&["1.1.1.1, 10.0.0.1, 10.0.0.2"], Some(("1.1.1.1", false)));
        check(&["10.0.0.1, 10.0.0.2"], Some(("10.0.0.1", false)));
        check(&["10.0.0.1"], Some(("10.0.0.1", true)));
        check(&["1.1.1.1"], Some(("1.1.1.1", true)));
        check(&["no, 10.0.0.2"], None);
        check(&[], None);
    }
}
