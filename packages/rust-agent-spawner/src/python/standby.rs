//! The line of a fleet's runs, as Python says who stands in it and how long that is good.

use super::seconds;
use crate::standby::Standby;
use pyo3::prelude::*;
use std::sync::Arc;

/// Where runs of a fleet stand that start when another has ended, without the event loop.
#[pyclass(frozen, name = "Standby", module = "vespera_agent_spawner._native")]
pub(super) struct PyStandby {
    pub(super) inner: Arc<Standby>,
}

#[pymethods]
impl PyStandby {
    #[new]
    fn new(most_starting: usize) -> Self {
        Self {
            inner: Arc::new(Standby::new(most_starting)),
        }
    }

    /// Whether the event loop comes late for what ends.
    fn is_wanted(&self) -> bool {
        self.inner.is_wanted()
    }

    /// How many of the fleet are starting, those that nobody has heard of among them.
    fn starting(&self) -> usize {
        self.inner.starting()
    }

    /// The fleet has been looked at: for so many seconds those in line may start.
    fn renew(&self, good_for: f64) -> PyResult<()> {
        self.inner.renew(seconds(good_for, "good_for")?);
        Ok(())
    }
}
