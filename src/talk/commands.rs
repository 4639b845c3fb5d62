//! Commands that answer calls: arguments in, a result out, in bounded time and memory. What fails is a result too, since the
//! model shall deal with it.

use super::answer::Call;
use super::signals::Group;
use crate::cli::ChatArgs;
use serde_json::json;
use std::collections::HashMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Bytes of a result that are taken.
const LONGEST: u64 = 1 << 20;

/// A command for each function that has one.
pub(super) struct Commands {
    by_name: HashMap<String, String>,
    limit: Duration,
    group: Group,
}

impl Commands {
    /// The command that runs is in `group`.
    pub(super) fn new(args: &ChatArgs, group: Group) -> Self {
        let limit = Duration::from_secs(args.run_timeout_seconds);
        Self { by_name: args.runs.iter().cloned().collect(), limit, group }
    }

    /// The result of a call whose function has a command.
    pub(super) fn run(&self, call: &Call) -> Option<impl Future<Output = String> + use<>> {
        let (command, arguments, limit) = (self.by_name.get(&call.name)?.clone(), call.arguments.clone(), self.limit);
        let group = self.group.clone();
        Some(async move {
            let failed = |problem: String| json!({"error": problem}).to_string();
            let done = match Running::start(&command, group) {
                Ok(running) => tokio::time::timeout(limit, running.finish(arguments)).await,
                Err(error) => return failed(format!("cannot start `{command}`: {error}")),
            };
            match done {
                Err(_) => failed(format!("no result after {} seconds", limit.as_secs())),
                Ok(Err(error)) => failed(format!("the command failed: {error}")),
                Ok(Ok((status, text))) if status.success() => text,
                Ok(Ok((status, text))) if text.trim().is_empty() => failed(format!("the command failed ({status})")),
                Ok(Ok((status, text))) => failed(format!("the command failed ({status}): {}", text.trim_end())),
            }
        })
    }
}

/// A command with all that it has started, which ends with it.
struct Running {
    child: Child,
    group: Group,
}

impl Running {
    fn start(command: &str, group: Group) -> std::io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: group.spawn(&mut shell)?, group })
    }

    /// Hands the arguments over and takes what is written, without the line break at its end.
    async fn finish(mut self, arguments: String) -> std::io::Result<(ExitStatus, String)> {
        let (stdin, stdout) = (self.child.stdin.take(), self.child.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command need not read what it does not want.
                let _ = stdin.write_all(arguments.as_bytes()).await;
            }
        };
        let read = async {
            let mut bytes = Vec::new();
            if let Some(stdout) = stdout {
                stdout.take(LONGEST + 1).read_to_end(&mut bytes).await?;
            }
            Ok::<_, std::io::Error>(bytes)
        };
        let ((), bytes) = tokio::join!(write, read);
        let (bytes, status) = (bytes?, self.child.wait().await?);
        if bytes.len() as u64 > LONGEST {
            return Err(std::io::Error::other(format!("its result is longer than {LONGEST} bytes")));
        }
        Ok((status, String::from_utf8_lossy(&bytes).trim_end_matches(['\r', '\n']).to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn run(command: &str, seconds: u64) -> String {
        let by_name = HashMap::from([("f".to_owned(), command.to_owned())]);
        let commands = Commands { by_name, limit: Duration::from_secs(seconds), group: Group::default() };
        let call = Call { id: "a".into(), name: "f".into(), arguments: "{\"x\":1}".into() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert!(commands.run(&Call { name: "g".into(), ..call.clone() }).is_none());
        runtime.block_on(commands.run(&call).unwrap())
    }

    #[test]
    fn a_command_reads_the_arguments_and_writes_the_result() {
        assert_eq!(run("cat; echo", 20), "{\"x\":1}");
        assert_eq!(run("echo done", 20), "done");
    }

    #[test]
    fn a_command_that_fails_is_a_result_that_says_so() {
        assert_eq!(run("echo no; exit 3", 20), r#"{"error":"the command failed (exit status: 3): no"}"#);
        assert_eq!(run("echo; exit 3", 20), r#"{"error":"the command failed (exit status: 3)"}"#);
    }

    #[test]
    fn a_command_that_takes_too_long_ends_with_all_that_it_started() {
        let started = Instant::now();
        let file = tempfile::NamedTempFile::new().unwrap();
        let command = format!("(sleep 2; echo late > {}) & wait", file.path().display());
        assert_eq!(run(&command, 1), r#"{"error":"no result after 1 seconds"}"#);
        assert!(started.elapsed() < Duration::from_secs(2));
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "");
    }

    #[test]
    fn an_endless_result_is_not_taken() {
        assert_eq!(run("yes", 20), r#"{"error":"the command failed: its result is longer than 1048576 bytes"}"#);
    }
}
