//! Functions and what is in their way as JSON, for programs: what `trapline devices --json` prints.
//!
//! Names and forms stay; new names may come.
//!
//! | name | what |
//! |---|---|
//! | `obstacles` | what is in the way of any assignment: `code`, `stops` (false: it limits), `text` |
//! | `devices` | a list, each with the names below; what is not known is `null` |
//! | `address` | as `0000:01:00.0` |
//! | `vendor`, `device`, `subsystem_vendor`, `subsystem_device` | four hexadecimal digits |
//! | `class` | six hexadecimal digits: base class, subclass, programming interface |
//! | `name`, `class_name` | words, from the system's pci.ids |
//! | `driver`, `driver_override` | names |
//! | `iommu_group` | a number |
//! | `companions` | the rest of its group: `address`, `class`, `driver`, `holds_group` (no guest gets the group) |
//! | `bars` | `index`, `kind` (`io`, `memory32`, `memory64`), `prefetchable`, `address` (0: not told), `size` |
//! | `rom` | `size` in bytes, `shadow` (the copy that the host's firmware has run) |
//! | `legacy_vga` | `yes`, `no`, or `unknown` until vfio-pci is loaded |
//! | `boot_vga` | whether the host's firmware showed itself on it |
//! | `reset_methods` | the kernel's names; `unnamed` where it does not say |
//! | `power_state` | `D0` to `D3cold` |
//! | `numa_node` | a number |
//! | `link` | `speed`, `width`, `max_speed`, `max_width` |
//! | `virtual_functions` | how many are switched on |
//! | `obstacles` | as above, for this function |
//!
//! Codes of obstacles are those of [`Kind`](super::Kind). There are no serial numbers in it.

use serde::Serialize;

use super::environment::{LegacyVga, VfioPci};
use super::function::{HostLink, Reset};
use super::resource::{HostBar, HostRom};
use super::{Function, Host, Obstacle};

#[derive(Serialize)]
struct Document<'a> {
    obstacles: Vec<Obstacle>,
    devices: Vec<Device<'a>>,
}

#[derive(Serialize)]
struct Device<'a> {
    address: String,
    vendor: String,
    device: String,
    subsystem_vendor: String,
    subsystem_device: String,
    class: String,
    name: String,
    class_name: String,
    driver: &'a Option<String>,
    driver_override: &'a Option<String>,
    iommu_group: Option<u32>,
    companions: Vec<Companion<'a>>,
    bars: &'a [HostBar],
    rom: Option<HostRom>,
    legacy_vga: &'static str,
    boot_vga: bool,
    reset_methods: &'a Reset,
    power_state: &'a Option<String>,
    numa_node: Option<u32>,
    link: &'a Option<HostLink>,
    virtual_functions: u32,
    obstacles: Vec<Obstacle>,
}

#[derive(Serialize)]
struct Companion<'a> {
    address: String,
    class: String,
    driver: &'a Option<String>,
    holds_group: bool,
}

/// The document, with a line's end; `memory` is what [`Host::obstacles`] takes.
///
/// # Errors
/// None in practice: everything in it can be written.
pub fn json(host: &Host, chosen: &[&Function], memory: u64) -> serde_json::Result<String> {
    let devices = chosen.iter().map(|function| device(host, function)).collect();
    let document = Document { obstacles: host.obstacles(memory), devices };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn device<'a>(host: &'a Host, function: &'a Function) -> Device<'a> {
    let companion = |other: &'a Function| Companion {
        address: other.address.to_string(),
        class: format!("{:06x}", other.class),
        driver: &other.driver,
        holds_group: other.holds_group(),
    };
    Device {
        address: function.address.to_string(),
        vendor: format!("{:04x}", function.vendor),
        device: format!("{:04x}", function.device),
        subsystem_vendor: format!("{:04x}", function.subsystem.0),
        subsystem_device: format!("{:04x}", function.subsystem.1),
        class: format!("{:06x}", function.class),
        name: host.name_of(function),
        class_name: host.class_of(function),
        driver: &function.driver,
        driver_override: &function.driver_override,
        iommu_group: function.group,
        companions: host.companions(function).map(companion).collect(),
        bars: &function.bars,
        rom: function.rom,
        legacy_vga: legacy_vga(host, function),
        boot_vga: function.boot_vga,
        reset_methods: &function.reset,
        power_state: &function.power,
        numa_node: function.numa_node,
        link: &function.link,
        virtual_functions: function.virtual_functions,
        obstacles: host.obstacles_of(function),
    }
}

fn legacy_vga(host: &Host, function: &Function) -> &'static str {
    match host.environment().vfio_pci {
        _ if !function.is_vga() => "no",
        VfioPci::Loaded { legacy_vga: LegacyVga::On } => "yes",
        VfioPci::Loaded { .. } | VfioPci::Missing => "no",
        VfioPci::Available => "unknown",
    }
}
