//! The binary: the allocator and the way in.
use std::process::ExitCode;

use libmimalloc_sys::{mi_option_set, mi_option_t};

// Requests make many small, short-lived allocations on several threads, which this allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3's `mimalloc.h`; the crate has no name for it.
const PURGE_DELAY: mi_option_t = 15;

fn main() -> ExitCode {
    give_memory_back_at_once();
    outrigger::cli::run()
}

/// By default freed pages go back to the system a second later, and only if the thread that freed them allocates again: what a
/// configuration dump or a burst took would stay with a sidecar at rest. A few `madvise` calls per hundred requests are the price.
#[allow(unsafe_code)]
fn give_memory_back_at_once() {
    // SAFETY: sets a number that the allocator reads; callable at any time from any thread.
    unsafe { mi_option_set(PURGE_DELAY, 0) };
}
