//! The `crewfs` program. All of its code is in the library, where it can be tested and documented.

fn main() -> std::process::ExitCode {
    crewfs::cli::main()
}
