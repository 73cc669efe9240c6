//! The one integration-test binary of the repository: a module a behaviour.
//!
//! One binary links once. Modules that need root and network namespaces are named in the Makefile (`NETNS`): `make check`
//! leaves them out by name, as it does those that run a release binary (`RELEASE`); `make test` runs exactly those, so nothing
//! falls between the two.

mod agent;
mod alone;
mod bill;
mod bookinfo;
mod demo;
mod hygiene;
mod layering;
mod pair;
mod repo;
mod supply_chain;
mod traffic;
mod verdicts;
