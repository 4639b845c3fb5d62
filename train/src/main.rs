//! The `callsmith-train` binary.

fn main() -> std::process::ExitCode {
    callsmith_train::cli::main()
}
