//! Text to value, one function a kind; an error is the reason alone.
//!
//! Strict, because what passes here is written into iptables-restore text.

use std::num::NonZeroU16;

use ipnet::{IpNet, Ipv4Net};

use crate::log::Level;

pub(super) fn port(text: &str) -> Result<NonZeroU16, String> {
    if text == "*" {
        return Err("* stands alone or not at all".to_owned());
    }
    digits(text)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "not a port (1 to 65535)".to_owned())
}

/// A uid or gid. 4294967295 is -1, which the kernel takes for "no change".
pub(super) fn id(text: &str) -> Result<u32, String> {
    digits(text)
        .and_then(|text| text.parse().ok())
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| "not a user or group number (0 to 4294967294)".to_owned())
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
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '\'' | '\\');
    if text.len() > 15 || !text.chars().all(plain) || text.starts_with(['-', '!']) {
        return Err("not an interface name (at most 15 characters, no space, / or :)".to_owned());
    }
    Ok(text.to_owned())
}

/// A group's name or number.
pub(super) fn group(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text == "*" {
        return Err("* stands alone or not at all".to_owned());
    }
    if !text.chars().all(plain) || text.starts_with('-') {
        return Err("not a group name or number".to_owned());
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
    text.bytes().all(|b| b.is_ascii_digit()).then_some(text)
}
