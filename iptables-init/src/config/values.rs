//! Text to value, one function a kind; an error is the reason alone.
//!
//! Strict, because what passes here is written into iptables-restore text.

use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::log::Level;
use crate::plan::OUTBOUND_MARK;
use crate::rule::Id;

pub(super) fn port(text: &str) -> Result<NonZeroU16, String> {
    if text == "*" {
        return Err("* stands alone or not at all".to_owned());
    }
    digits(text)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "not a port (1 to 65535)".to_owned())
}

/// A uid or gid, or a name that `number_of` knows. 4294967295 is -1, which the kernel takes for "no change".
pub(super) fn id(text: &str, number_of: &dyn Fn(&str) -> Option<u32>) -> Result<Id, String> {
    if let Some(number) = digits(text) {
        let number: Option<u32> = number.parse().ok();
        let number = number.filter(|number| *number != u32::MAX);
        return number
            .map(Id::from)
            .ok_or_else(|| "not a user or group number (0 to 4294967294)".to_owned());
    }
    if text == "*" {
        return Err("* stands alone or not at all".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !text.chars().all(plain) || text.starts_with('-') {
        return Err("not a name or number of a user or group".to_owned());
    }
    let number = number_of(text).ok_or("no user or group of this name in this image; give its number")?;
    Ok(Id {
        number,
        name: Some(text.to_owned()),
    })
}

/// A packet mark, decimal or 0x….
pub(super) fn mark(text: &str) -> Result<u32, String> {
    let mark = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(digits_of(hex, 16).unwrap_or_default(), 16).ok(),
        None => digits(text).and_then(|text| text.parse().ok()),
    };
    match mark {
        None => Err("not a packet mark (1 to 4294967295)".to_owned()),
        Some(0) => Err("a packet without mark has 0".to_owned()),
        Some(OUTBOUND_MARK) => Err("the rules use this mark for something else".to_owned()),
        Some(mark) => Ok(mark),
    }
}

/// A routing table that is not one of the kernel's own (rtnetlink(7): 253 default, 254 main, 255 local).
pub(super) fn route_table(text: &str) -> Result<u32, String> {
    match digits(text).and_then(|text| text.parse().ok()) {
        None | Some(0) => Err("not a routing table (1 to 4294967295)".to_owned()),
        Some(253..=255) => Err("this routing table is the kernel's own".to_owned()),
        Some(table) => Ok(table),
    }
}

/// Go's `time.ParseDuration` without fractions: `5s`, `1m30s`, `500ms`; at most an hour.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const REASON: &str = "not a duration such as 5s or 500ms (up to 1h)";
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit()).ok_or(REASON)?;
        let (number, tail) = rest.split_at(number_ends);
        let unit_ends = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(REASON.to_owned()),
        };
        let number: u32 = number.parse().map_err(|_| REASON)?;
        sum = unit
            .checked_mul(number)
            .and_then(|part| sum.checked_add(part))
            .ok_or(REASON)?;
        rest = tail;
    }
    if sum.is_zero() || sum > Duration::from_secs(3600) {
        return Err(REASON.to_owned());
    }
    Ok(sum)
}

pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    if text == "*" {
        return Err("* is possible for -i only, and alone".to_owned());
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Err(format!(
            "an address without a prefix length; write {}",
            IpNet::from(address)
        ));
    }
    text.parse()
        .map_err(|_| "not a CIDR such as 10.0.0.0/8 or fd00::/8".to_owned())
}

/// An IPv4 network inside 127.0.0.0/8.
pub(super) fn loopback(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text
        .parse()
        .map_err(|_| "not an IPv4 CIDR such as 127.0.0.1/32".to_owned())?;
    if !net.addr().is_loopback() || net.prefix_len() < 8 {
        return Err("not inside 127.0.0.0/8".to_owned());
    }
    Ok(net)
}

/// A kernel interface name (IFNAMSIZ is 16 with its zero), or its beginning and `+`.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '\'' | '\\' | '*');
    if text == "+" {
        return Err("would be every interface".to_owned());
    }
    if text.len() > 15 || !text.chars().all(plain) || text.starts_with(['-', '!']) {
        return Err("not an interface name (at most 15 characters, no space, /, : or *)".to_owned());
    }
    Ok(text.to_owned())
}

/// The words of Go's `strconv.ParseBool`, which Istio's flags take.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("neither true nor false".to_owned()),
    }
}

/// `scope:level`, or `level` for the default scope.
pub(super) fn scope_level(text: &str) -> Result<(String, Level), String> {
    let (scope, level) = text.split_once(':').unwrap_or(("default", text));
    let level = Level::parse(level).ok_or("the level is none of none, fatal, error, warn, info, debug")?;
    Ok((scope.to_owned(), level))
}

/// `parse` alone would take a sign.
fn digits(text: &str) -> Option<&str> {
    digits_of(text, 10)
}

fn digits_of(text: &str, radix: u32) -> Option<&str> {
    text.chars().all(|c| c.is_digit(radix)).then_some(text)
}
