//! The binary: hands the command line to the library.

use std::process::ExitCode;

/// The system allocator keeps more of what streams gave back, and was slower in every run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tollgate::cli::main()
}
