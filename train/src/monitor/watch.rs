//! A monitor where somebody watches: of several ranks that train together the first one tells what happens, the others
//! are silent.

use super::{Monitor, StepLine};
use crate::error::{Result, TrainError};
use serde_json::Value;

/// A [`Monitor`], or none.
pub struct Watch(pub Option<Monitor>);

impl Watch {
    /// As [`Monitor::step`].
    pub fn step(&mut self, line: &StepLine<'_>, log: bool) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |monitor| monitor.step(line, log))
    }

    /// As [`Monitor::event`].
    pub fn event(&mut self, event: &str, fields: Value, sentence: &str) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |monitor| monitor.event(event, fields, sentence))
    }

    /// As [`Monitor::fail`].
    pub fn fail(&mut self, error: &TrainError) {
        if let Some(monitor) = &mut self.0 {
            monitor.fail(error);
        }
    }

    /// As [`Monitor::paused`].
    pub fn paused<T>(&mut self, work: impl FnOnce() -> T) -> T {
        match &mut self.0 {
            Some(monitor) => monitor.paused(work),
            None => work(),
        }
    }
}
