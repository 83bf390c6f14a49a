//! The `wgha` program: one binary for the daemon and its command line.

fn main() -> std::process::ExitCode {
    wgha::cli::main()
}
