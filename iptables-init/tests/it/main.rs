//! The program and its rules, from outside.
//!
//! [`kernel`] needs root and network namespaces; everything else needs neither, nor any iptables.

mod cases;
mod cli;
mod golden;
mod kernel;
mod random;
