//! The `callsmith-train` binary.

fn main() -> std::process::ExitCode {
    #[cfg(feature = "failpoints")]
    let _faults = fail::FailScenario::setup();
    callsmith_train::cli::main()
}
