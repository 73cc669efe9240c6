//! The binary: the allocator and the way in.
use std::process::ExitCode;

// Requests make many small, short-lived allocations on several threads, which this allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    outrigger::cli::run()
}
