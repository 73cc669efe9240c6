//! outrigger beside Envoy, nginx and haproxy: what a request costs, how much memory, how soon a start.
//!
//! One run, one machine, proxies in turn (A B C D D C B A …): proxies on one core, load and backend on another. What is
//! measured is the CPU time of the proxy's process as the scheduler counts it, divided by the requests it carried; every
//! comparison is a ratio of two slices that lie beside each other in time.
//!
//! - [`cells`]: the workloads. [`interleave`]: how they are measured. [`peer`]: the programs and their configurations.
//! - [`client`], [`backend`] and [`h2`]: the load. [`system`], [`process`] and [`affinity`]: the machine's own counts.
//! - [`figures`], [`report`] and [`plot`]: from samples to tables; they read what was written, not what was measured.

#![forbid(unsafe_code)]

pub mod affinity;
pub mod backend;
pub mod cells;
pub mod client;
pub mod figures;
pub mod h2;
pub mod interleave;
pub mod machine;
pub mod peer;
pub mod plot;
pub mod process;
pub mod report;
pub mod samples;
pub mod system;
