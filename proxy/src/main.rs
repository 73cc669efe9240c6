//! The binary: the allocator and the way in.
use std::process::ExitCode;

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

// Requests make many small, short-lived allocations on several threads, which this allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc 3's `mimalloc.h`; the crate has no name for it.
const PURGE_DELAY: mi_option_t = 15;

fn main() -> ExitCode {
    keep_freed_pages_for_a_moment();
    outrigger::cli::run(give_freed_pages_back)
}

/// Freed pages go back to the system this much later, so that what follows at once (the next part of a push) need not ask for them anew.
const FREED_PAGES_STAY_MS: i64 = 100;

#[allow(unsafe_code)]
fn keep_freed_pages_for_a_moment() {
    // SAFETY: sets a number that the allocator reads; callable at any time from any thread.
    unsafe { mi_option_set(PURGE_DELAY, FREED_PAGES_STAY_MS) };
}

/// The allocator looks for pages that are due only when a thread frees one: what a configuration dump or a burst took would stay with a
/// sidecar at rest. So somebody has to ask now and then; one call looks at the pages of all threads.
#[allow(unsafe_code)]
fn give_freed_pages_back() {
    // SAFETY: tidies up the calling thread's lists of pages; callable at any time from any thread.
    unsafe { mi_collect(false) };
}
