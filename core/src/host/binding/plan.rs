//! Which functions a command is about, and why it does nothing.

use super::VFIO_PCI;
use crate::host::environment::{Iommu, VfioPci};
use crate::host::usage::{self, Usage};
use crate::host::{Function, Host, PciAddress, obstacle};

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The functions.
    pub addresses: Vec<PciAddress>,
    /// Whether the endpoints of their IOMMU groups go along.
    pub companions: bool,
    /// Whether functions are taken that the host uses.
    pub force: bool,
}

/// The functions to change, by address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// As they are now.
    pub functions: Vec<Function>,
}

/// Why nothing is done. Its text is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Plan {
    /// What is to be given to vfio-pci.
    ///
    /// # Errors
    /// Something named does not exist, cannot be given away, or is used by the host. The last is refused
    /// because nobody would see the outcome: a boot adapter that goes dark, or a network interface that
    /// goes down, takes with it the way to say that this was a mistake. driverctl and QEMU do as they are
    /// told; `force` does too. A disk that is in use is refused even then, and so is a function with virtual
    /// functions, which others may have.
    pub fn bind(host: &Host, wish: &Wish) -> Result<Plan, Refusal> {
        let plan = Plan::of(host, wish, |_| true)?;
        possible(host, &plan)?;
        let taken = || plan.functions.iter().filter(|function| function.driver.as_deref() != Some(VFIO_PCI));
        for function in taken() {
            unused(host, function, wish.force)?;
        }
        if wish.companions {
            for function in &plan.functions {
                no_bridge_holds(host, function)?;
            }
        }
        Ok(plan)
    }

    /// What is to be given back.
    ///
    /// # Errors
    /// Something named does not exist, or a process has it.
    pub fn unbind(host: &Host, wish: &Wish) -> Result<Plan, Refusal> {
        let plan = Plan::of(host, wish, is_ours)?;
        for function in plan.functions.iter().filter(|function| function.is_given() && !wish.force) {
            if let Some(usage) = usage::of(host.tree(), function.address).first() {
                let text =
                    format!("{}: {usage}: end it first (or --force, which waits for it)", function.address);
                return Err(Refusal(text));
            }
        }
        Ok(plan)
    }

    /// The functions that are named, and the endpoints of their groups of which `along` says so.
    fn of(host: &Host, wish: &Wish, along: impl Fn(&Function) -> bool) -> Result<Plan, Refusal> {
        let mut functions: Vec<Function> = Vec::new();
        for address in &wish.addresses {
            let Some(function) = host.function(*address) else {
                return Err(Refusal(format!(
                    "{address}: there is no such PCI function (trapline devices --all lists them)"
                )));
            };
            if function.is_bridge() {
                let text = format!(
                    "{address}: it is a bridge ({}), which stays with the host",
                    host.class_of(function)
                );
                return Err(Refusal(text));
            }
            functions.push(function.clone());
            let others = host.companions(function).filter(|other| wish.companions && !other.is_bridge());
            functions.extend(others.filter(|other| along(other)).cloned());
        }
        functions.sort_by_key(|function| function.address);
        functions.dedup_by_key(|function| function.address);
        Ok(Plan { functions })
    }
}

/// Whether a function is given away, or told to be.
fn is_ours(function: &Function) -> bool {
    function.is_given() || function.driver_override.as_deref() == Some(VFIO_PCI)
}

/// Without an IOMMU or a driver it would be in vain, and the function without a driver afterwards.
fn possible(host: &Host, plan: &Plan) -> Result<(), Refusal> {
    if host.environment().iommu != Iommu::On || host.environment().vfio_pci == VfioPci::Missing {
        let reasons = host.obstacles(0).into_iter().filter(|obstacle| {
            matches!(obstacle.code, crate::host::Kind::NoIommu | crate::host::Kind::NoVfioPci)
        });
        return Err(Refusal(reasons.map(|obstacle| obstacle.text).collect::<Vec<_>>().join("; ")));
    }
    match plan.functions.iter().find(|function| function.group.is_none()) {
        None => Ok(()),
        Some(function) => Err(Refusal(format!(
            "{}: it is in no IOMMU group, so the IOMMU does not see it: it cannot be given away",
            function.address
        ))),
    }
}

fn unused(host: &Host, function: &Function, force: bool) -> Result<(), Refusal> {
    let address = function.address;
    let mut uses = usage::of(host.tree(), address);
    if !uses.iter().any(|usage| matches!(usage, Usage::Storage(_))) {
        uses.extend(usage::claims(host.tree(), address));
    }
    if let Some(disk) = uses.iter().find(|usage| matches!(usage, Usage::Storage(_))) {
        return Err(Refusal(format!(
            "{address}: {disk}: unmount it first (swap space: swapoff; volumes, RAIDs, programs: end them)"
        )));
    }
    if let Some(obstacle) = obstacle::virtual_functions(function) {
        return Err(Refusal(format!("{address}: {}", obstacle.text)));
    }
    if force {
        return Ok(());
    }
    if let Some(usage) = uses.first() {
        return Err(Refusal(format!("{address}: {usage}: end that first, or take it with --force")));
    }
    let framebuffers = &host.environment().framebuffers;
    let console =
        framebuffers.iter().any(|framebuffer| function.bars.iter().any(|bar| framebuffer.is_in(bar)));
    if function.boot_vga && (function.driver.is_some() || console) {
        return Err(Refusal(format!(
            "{address}: it is the boot adapter, and the host's console on it goes dark: take it with --force, best from \
             another machine"
        )));
    }
    Ok(())
}

/// A bridge with a driver of its own keeps the group from being viable, and is never taken.
fn no_bridge_holds(host: &Host, function: &Function) -> Result<(), Refusal> {
    let holding = |other: &&Function| other.is_bridge() && other.holds_group();
    match host.companions(function).find(holding) {
        None => Ok(()),
        Some(bridge) => Err(Refusal(format!(
            "{}: {} ({}, driver {}) is in its IOMMU group and stays with the host, so no guest can have it: put it into \
             another slot (or bind it alone with --only)",
            function.address,
            bridge.address,
            host.class_of(bridge),
            bridge.driver.as_deref().unwrap_or("none"),
        ))),
    }
}
