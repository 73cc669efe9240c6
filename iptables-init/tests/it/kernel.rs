//! Rules in the real kernel: what connects where, what a second run does, what stays behind.
//!
//! Tests make network namespaces, a *pod* and a *peer* joined by veth pairs, and remove them. They need root, `ip`
//! (iproute2), iptables, nftables and `setpriv` (util-linux); without those they fail and say so.
// No test here has a worker whose connections a pause could stop.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod behaviour;
mod doctor;
mod killed;
mod netlink;
mod options;
mod pods;
mod probe;
mod random;
mod second_run;
mod selftest;
