//! Giving functions to vfio-pci, and back to the host.
//!
//! Everything goes by `driver_override`, as driverctl does it: the one driver that a function may have.
//! Nothing is remembered anywhere else, so that sysfs alone says how things are, and a reboot undoes all.
//!
//! * [`plan`]: which functions, and why not;
//! * [`mod@write`]: one write to sysfs, in a process of its own: a driver that does not let go hangs in the
//!   kernel, where no signal reaches it.
//!
//! Functions change in the order of their addresses. If one fails, those before it go back to the drivers
//! that they had. Functions of the same IOMMU group that are endpoints go along, with and without a
//! driver: a driver that turns up later would take the group from the guest. Bridges stay.

pub mod plan;
pub mod write;

use std::fmt;

use super::function::DEVICES;
use super::{Function, PciAddress, Tree};
pub use plan::{Plan, Refusal, Wish};
pub use write::{Children, Kernel, WriteError};

/// The driver, by its name in `sys/bus/pci/drivers`.
pub const VFIO_PCI: &str = "vfio-pci";
const PROBE: &str = "sys/bus/pci/drivers_probe";
/// What clears `driver_override`.
const NOTHING: &str = "\n";

/// What became of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The function.
    pub address: PciAddress,
    /// Its driver before.
    pub from: Option<String>,
    /// Its driver now.
    pub to: Option<String>,
}

/// A function that could not be changed, and what was put back. Its text is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {problem}{}", Remedies(&self.restored))]
pub struct Failure {
    /// The function.
    pub address: PciAddress,
    /// What went wrong, and what to do.
    pub problem: String,
    /// The functions that had been changed, and what they are now.
    pub restored: Vec<Change>,
}

/// Why a step failed.
struct Problem {
    text: String,
    /// The kernel holds the function's lock: whatever else is written to it would hang too.
    hung: bool,
}

/// Gives all functions of a plan to vfio-pci. Those that have it stay as they are.
///
/// Blocks up to the deadline of `kernel` for each write.
///
/// # Errors
/// A function could not be changed; what was changed before is put back.
pub fn bind(tree: &Tree, plan: &Plan, kernel: &mut dyn Kernel) -> Result<Vec<Change>, Failure> {
    let mut done: Vec<(Function, Change)> = Vec::new();
    for function in &plan.functions {
        match take(tree, function, kernel) {
            Ok(change) => done.push((function.clone(), change)),
            Err(problem) => {
                let mut restored = Vec::new();
                if !problem.hung {
                    restored.extend(restore(tree, function, kernel));
                }
                restored.extend(done.iter().rev().flat_map(|(was, _)| restore(tree, was, kernel)));
                return Err(Failure { address: function.address, problem: problem.text, restored });
            }
        }
    }
    Ok(done.into_iter().map(|(_, change)| change).collect())
}

/// Gives all functions of a plan back to the host, and lets its drivers look at them.
///
/// Blocks as [`bind`] does.
///
/// # Errors
/// A function could not be changed. Those before it stay with the host.
pub fn unbind(tree: &Tree, plan: &Plan, kernel: &mut dyn Kernel) -> Result<Vec<Change>, Failure> {
    let one = |function: &Function| {
        let fail =
            |problem: Problem| Failure { address: function.address, problem: problem.text, restored: vec![] };
        give_back(tree, function, kernel).map_err(fail)
    };
    plan.functions.iter().map(one).collect()
}

fn take(tree: &Tree, function: &Function, kernel: &mut dyn Kernel) -> Result<Change, Problem> {
    let address = function.address;
    if function.driver.as_deref() == Some(VFIO_PCI) {
        return Ok(Change { address, from: function.driver.clone(), to: function.driver.clone() });
    }
    set_override(address, VFIO_PCI, kernel)?;
    release(function, kernel)?;
    let answer = kernel.write(PROBE, &address.to_string());
    let to = driver(tree, address);
    if to.as_deref() == Some(VFIO_PCI) {
        return Ok(Change { address, from: function.driver.clone(), to });
    }
    Err(match (answer, to) {
        (Err(error), _) => problem("vfio-pci does not take it", &error),
        (Ok(()), Some(driver)) => Problem::new(format!("{driver} took it, not vfio-pci: try again")),
        (Ok(()), None) => Problem::new("vfio-pci does not take it: see dmesg for the reason".into()),
    })
}

fn give_back(tree: &Tree, function: &Function, kernel: &mut dyn Kernel) -> Result<Change, Problem> {
    let address = function.address;
    if function.driver_override.is_some() {
        set_override(address, NOTHING, kernel)?;
    }
    if function.is_given() {
        release(function, kernel)?;
    }
    // An error is only that of a driver that does not want it; whether one does is seen below.
    let _ = kernel.write(PROBE, &address.to_string());
    if driver(tree, address).is_none() {
        load_driver(tree, address, kernel);
    }
    let to = driver(tree, address);
    if to.as_deref() == Some(VFIO_PCI) {
        return Err(Problem::new(
            "vfio-pci took it again, since its list of ids names it: see options vfio-pci ids= in /etc/modprobe.d and \
             vfio-pci.ids= on the kernel's command line"
                .into(),
        ));
    }
    Ok(Change { address, from: function.driver.clone(), to })
}

/// Puts a function back to what it was, as well as it can be done.
fn restore(tree: &Tree, was: &Function, kernel: &mut dyn Kernel) -> Option<Change> {
    let address = was.address;
    let now = Function::read(tree, address)?;
    if (&now.driver, &now.driver_override) == (&was.driver, &was.driver_override) {
        return None;
    }
    // Whatever fails here is seen in the driver that it has in the end.
    let _ = set_override(address, was.driver_override.as_deref().unwrap_or(NOTHING), kernel);
    if now.driver != was.driver {
        let _ = release(&now, kernel);
        if let Some(driver) = &was.driver {
            let _ = kernel.write(&format!("sys/bus/pci/drivers/{driver}/bind"), &address.to_string());
        }
    }
    Some(Change { address, from: now.driver, to: driver(tree, address) })
}

fn set_override(address: PciAddress, driver: &str, kernel: &mut dyn Kernel) -> Result<(), Problem> {
    let file = format!("{DEVICES}/{address}/driver_override");
    kernel.write(&file, driver).map_err(|error| problem("driver_override cannot be set", &error))
}

/// Takes a function from its driver.
fn release(function: &Function, kernel: &mut dyn Kernel) -> Result<(), Problem> {
    let Some(driver) = &function.driver else { return Ok(()) };
    let file = format!("{DEVICES}/{}/driver/unbind", function.address);
    kernel
        .write(&file, &function.address.to_string())
        .map_err(|error| problem(&format!("{driver} does not let go of it"), &error))
}

/// Loads the module that wants a function, if there is one and it is not told to stay out.
fn load_driver(tree: &Tree, address: PciAddress, kernel: &mut dyn Kernel) {
    if let Some(alias) = tree.text(format!("{DEVICES}/{address}/modalias")) {
        // No module for it is no error: then no driver wants it.
        let _ = kernel.load(&alias);
    }
}

fn driver(tree: &Tree, address: PciAddress) -> Option<String> {
    Function::read(tree, address)?.driver
}

fn problem(what: &str, error: &WriteError) -> Problem {
    Problem { text: format!("{what}: {error}"), hung: matches!(error, WriteError::Hung { .. }) }
}

impl Problem {
    fn new(text: String) -> Problem {
        Problem { text, hung: false }
    }
}

impl Change {
    /// Whether the driver is another one now.
    pub fn is_one(&self) -> bool {
        self.from != self.to
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "no driver".into());
        match self.is_one() {
            true => write!(f, "{}: {} -> {}", self.address, name(&self.from), name(&self.to)),
            false => write!(f, "{}: {}, as before", self.address, name(&self.to)),
        }
    }
}

/// What was put back, as the end of a sentence.
struct Remedies<'a>(&'a [Change]);

impl fmt::Display for Remedies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, change) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { " (put back: " } else { ", " })?;
            write!(f, "{} {}", change.address, change.to.as_deref().unwrap_or("without driver"))?;
        }
        f.write_str(if self.0.is_empty() { "" } else { ")" })
    }
}

#[cfg(test)]
mod tests;
