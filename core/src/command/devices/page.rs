//! The table for people, and a paragraph for each function.

use std::fmt::Write;

use super::super::paragraph::{WIDTH, cut, entry};
use crate::config::size::shown;
use crate::host::environment::{LegacyVga, VfioPci};
use crate::host::function::Reset;
use crate::host::resource::{HostBar, HostBarKind};
use crate::host::{Function, Host, Obstacle};

/// The longest name of a driver that is shown whole in the table.
const DRIVER_MOST: usize = 16;

/// All of it. `details` adds the paragraphs.
pub(super) fn text(host: &Host, chosen: &[&Function], memory: u64, details: bool) -> String {
    let mut page = String::new();
    let obstacles = host.obstacles(memory);
    if chosen.is_empty() {
        page.push_str("This host has no display adapter (trapline devices --all lists what else it has).\n");
    } else {
        table(&mut page, host, chosen, !any_stops(&obstacles));
    }
    if !obstacles.is_empty() {
        page.push_str("\nthis host\n");
        tell(&mut page, &obstacles);
    }
    for function in chosen.iter().filter(|_| details) {
        let _ = writeln!(page, "\n{}  {}", function.address, cut(&name(host, function), WIDTH - 16));
        paragraph(&mut page, host, function);
        tell(&mut page, &host.obstacles_of(function));
    }
    if host.names().is_empty() && !chosen.is_empty() {
        page.push_str(
            "\nNames of vendors and devices need the system's pci.ids (Debian, Ubuntu: package pci.ids).\n",
        );
    }
    if !details && !chosen.is_empty() {
        page.push_str("\ntrapline devices BDF tells what each of them is and what is in its way.\n");
    }
    page
}

/// One line for each function; `ready` says that the host as a whole is.
fn table(page: &mut String, host: &Host, chosen: &[&Function], ready: bool) {
    let drivers = chosen.iter().map(|function| driver(function).chars().count());
    let width = drivers.max().unwrap_or(0).clamp("DRIVER".len(), DRIVER_MOST);
    let mut row = |address: &str, driver: &str, group: &str, vga: &str, ready: &str, name: &str| {
        let left = format!("{address:12}  {:width$}  {group:>5}  {vga:4}  {ready:5}  ", cut(driver, width));
        let room = WIDTH.saturating_sub(left.chars().count());
        let _ = writeln!(page, "{}", format!("{left}{}", cut(name, room)).trim_end());
    };
    row("ADDRESS", "DRIVER", "GROUP", "VGA", "READY", "NAME");
    for function in chosen {
        let vga = match (function.is_vga(), function.boot_vga) {
            (_, true) => "boot",
            (true, _) => "yes",
            _ => "-",
        };
        let group = function.group.map_or("-".into(), |group| group.to_string());
        let ready = ready && !any_stops(&host.obstacles_of(function));
        let ready = if ready { "yes" } else { "no" };
        row(&function.address.to_string(), driver(function), &group, vga, ready, &name(host, function));
    }
}

fn any_stops(obstacles: &[Obstacle]) -> bool {
    obstacles.iter().any(|obstacle| obstacle.stops)
}

/// The name, with ids where nothing else tells one device from another.
fn name(host: &Host, function: &Function) -> String {
    match host.names().vendor(function.vendor) {
        Some(_) => host.name_of(function),
        None => format!("{} {:04x}:{:04x}", host.name_of(function), function.vendor, function.device),
    }
}

fn driver(function: &Function) -> &str {
    function.driver.as_deref().unwrap_or("-")
}

fn paragraph(page: &mut String, host: &Host, function: &Function) {
    let subsystem = match function.subsystem {
        (0, 0) => String::new(),
        (vendor, device) => format!(" (subsystem {vendor:04x}:{device:04x})"),
    };
    let boot = if function.boot_vga { ", the host's boot adapter" } else { "" };
    let class = host.class_of(function);
    entry(page, "id", &format!("{:04x}:{:04x}{subsystem}, {class}{boot}", function.vendor, function.device));
    let only = function
        .driver_override
        .as_deref()
        .map_or(String::new(), |only| format!(" (driver_override {only})"));
    entry(page, "driver", &format!("{}{only}", function.driver.as_deref().unwrap_or("none")));
    entry(page, "group", &group(host, function));
    let bars: Vec<String> = function.bars.iter().map(bar).collect();
    entry(page, "BARs", &if bars.is_empty() { "none".into() } else { bars.join("; ") });
    entry(
        page,
        "ROM",
        &match function.rom {
            None => "none".into(),
            Some(rom) if rom.shadow => format!("{}, a shadow of what it was", shown(rom.size)),
            Some(rom) => shown(rom.size),
        },
    );
    if function.is_display() {
        entry(page, "legacy VGA", &legacy_vga(host, function));
    }
    entry(
        page,
        "reset",
        &match &function.reset {
            Reset::Methods(names) => names.join(", "),
            Reset::Unnamed => "yes".into(),
            Reset::None => "none of its own".into(),
        },
    );
    if let Some(link) = &function.link {
        let now = format!("{} x{}", link.speed, link.width);
        let most = format!("{} x{}", link.max_speed, link.max_width);
        entry(page, "link", &if now == most { now } else { format!("{now}, at most {most}") });
    }
    let node = function.numa_node.map_or(String::new(), |node| format!(", NUMA node {node}"));
    entry(page, "power", &format!("{}{node}", function.power.as_deref().unwrap_or("not known")));
}

fn group(host: &Host, function: &Function) -> String {
    let Some(number) = function.group else { return "none".into() };
    let companion = |other: &Function| {
        let driver = other.driver.as_deref().unwrap_or("no driver");
        format!("{} ({}, {driver})", other.address, host.class_of(other))
    };
    let companions: Vec<String> = host.companions(function).map(companion).collect();
    match companions.is_empty() {
        true => format!("{number}, alone"),
        false => format!("{number}, with {}", companions.join(", ")),
    }
}

fn bar(bar: &HostBar) -> String {
    let kind = match bar.kind {
        HostBarKind::Io => " of ports",
        HostBarKind::Memory32 => "",
        HostBarKind::Memory64 => ", 64-bit",
    };
    let prefetchable = if bar.prefetchable { ", prefetchable" } else { "" };
    format!("{}: {}{kind}{prefetchable}", bar.index, shown(bar.size))
}

fn legacy_vga(host: &Host, function: &Function) -> String {
    match host.environment().vfio_pci {
        _ if !function.is_vga() => {
            format!("none: class {:04x} is no VGA compatible controller", function.class >> 8)
        }
        VfioPci::Loaded { legacy_vga: LegacyVga::On } => "forwarded by vfio-pci".into(),
        VfioPci::Loaded { .. } | VfioPci::Missing => "not forwarded by this kernel".into(),
        VfioPci::Available => "not known until vfio-pci is loaded (trapline bind loads it)".into(),
    }
}

fn tell(page: &mut String, obstacles: &[Obstacle]) {
    for obstacle in obstacles {
        entry(page, if obstacle.stops { "! stops" } else { "! limits" }, &obstacle.text);
    }
}
