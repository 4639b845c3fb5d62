//! Signals that end a chat, and with it the command that answers a call: nobody else would end that one.
//!
//! Knows no conversation. Ctrl-C at a terminal is no such signal: it breaks an answer off.

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::sync::Arc;
use tokio::process::{Child, Command};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// The process group of the command that runs, if one does.
#[derive(Clone, Default)]
pub(super) struct Group(Arc<Mutex<Option<Pid>>>);

impl Group {
    /// Starts a command as the leader of a group of its own.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        // Held until the group is known, so that no signal comes between.
        let mut group = self.0.lock();
        let child = command.process_group(0).spawn()?;
        *group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(child)
    }

    /// Ends the command with all that it has started.
    pub(super) fn end(&self) {
        end(&mut self.0.lock());
    }
}

fn end(group: &mut Option<Pid>) {
    if let Some(group) = group.take() {
        // Nobody is left where it has ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// From now on SIGTERM and SIGHUP end the process and the group; without a terminal SIGINT does too. A thread waits for them,
/// because reading a line holds up the chat's own.
pub(super) fn watch(interactive: bool, group: &Group) -> io::Result<()> {
    let mut kinds = vec![SignalKind::terminate(), SignalKind::hangup()];
    if !interactive {
        kinds.push(SignalKind::interrupt());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<Vec<_>>>()?
    };
    let group = group.clone();
    std::thread::spawn(move || {
        let any = futures::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv())));
        let (_, which, _) = runtime.block_on(any);
        let mut group = group.0.lock();
        end(&mut group);
        // As a shell tells it of a process that the signal has ended. The lock is kept: no command starts any more.
        std::process::exit(128 + kinds[which].as_raw_value());
    });
    Ok(())
}
