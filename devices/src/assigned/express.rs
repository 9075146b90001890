//! The PCI Express capability, shaped by where the function sits.
//!
//! A guest takes the capability for the truth about the topology: an endpoint on the root bus has no
//! port above it to hold the other end of its link (Windows gives such a device up with code 10).

use trapline_io::Width;

use super::config::Config;
use super::options::Placement;
use super::registers::{CLASSIC, Registers};
use crate::pci::spec::{self, express};

/// Device/Port Type (PCI Express base specification 5.0 section 7.5.3.2).
const ENDPOINT: u16 = 0;
const LEGACY_ENDPOINT: u16 = 1;
const INTEGRATED_ENDPOINT: u16 = 9;
/// Of the capability's first word: the version, and what besides version and type is the device's: the
/// number of the interrupt message.
const VERSION: u16 = 0xf;
const MESSAGE_NUMBER: u16 = 0x3e00;

/// Where a version 1 endpoint's capability ends: behind the link, or before it for one without.
const LEN_1: u16 = 0x14;
const LEN_1_INTEGRATED: u16 = 0x0c;
const LEN_2: u16 = 0x3c;
const DEVICE_CAPABILITIES_2: u16 = 0x24;
const DEVICE_CONTROL_2: u16 = 0x28;
/// The link of something that has none of its own: 2.5 GT/s, one lane.
const SLOWEST: u32 = 0x11;
/// Link Control that software may set: ASPM, read completion boundary, common clock, extended synch.
const LINK_CONTROL: u32 = 0x00cb;

/// Adds the device's capability at `at`; whether it is shown.
pub(super) fn add(config: &mut Config, device: &Registers, at: u16, placement: Placement) -> bool {
    let flags = device.word(at + express::CAPABILITIES);
    let version = (flags & VERSION).clamp(1, 2);
    let kind = flags >> 4 & 0xf;
    let shown = match (placement, kind) {
        (Placement::RootBus, ENDPOINT | INTEGRATED_ENDPOINT) => INTEGRATED_ENDPOINT,
        (Placement::BehindPort, ENDPOINT | INTEGRATED_ENDPOINT) => ENDPOINT,
        (Placement::BehindPort, LEGACY_ENDPOINT) => LEGACY_ENDPOINT,
        _ => return hide(config, at, version),
    };
    let linked = shown != INTEGRATED_ENDPOINT;
    let len = match (version, linked || kind != INTEGRATED_ENDPOINT) {
        (1, true) => LEN_1,
        (1, false) => LEN_1_INTEGRATED,
        _ => LEN_2,
    };
    if at + len > CLASSIC {
        return hide(config, at, version);
    }
    config.keep(at, len);
    config.link(at, spec::CAP_EXPRESS);
    let flags = flags & MESSAGE_NUMBER | version | shown << 4;
    config.space_mut().preset(at + express::CAPABILITIES, Width::B2, flags.into());
    add_device(config, device, at, version);
    if linked {
        add_link(config, device, at, kind == INTEGRATED_ENDPOINT, version);
    }
    true
}

fn hide(config: &mut Config, at: u16, version: u16) -> bool {
    let len = if version == 1 { LEN_1 } else { LEN_2 };
    config.keep(at, len.min(CLASSIC - at));
    false
}

/// Device capabilities as they are; control and status are the device's to answer, and what a guest
/// may set of them its backend's to know.
fn add_device(config: &mut Config, device: &Registers, at: u16, version: u16) {
    let capabilities = device.dword(at + express::DEVICE_CAPABILITIES);
    config.space_mut().preset(at + express::DEVICE_CAPABILITIES, Width::B4, capabilities);
    config.pass(at + express::DEVICE_CONTROL, 4);
    if capabilities & express::FUNCTION_RESET_CAPABLE != 0 {
        config.resets_on(at + express::DEVICE_CONTROL + 1, (express::FUNCTION_RESET >> 8) as u8);
    }
    if version > 1 {
        let capabilities = device.dword(at + DEVICE_CAPABILITIES_2);
        config.space_mut().preset(at + DEVICE_CAPABILITIES_2, Width::B4, capabilities);
        config.pass(at + DEVICE_CONTROL_2, 4);
    }
}

/// The link as the device trained it. Its control is kept from the device: the other end of the real
/// link is the host's.
fn add_link(config: &mut Config, device: &Registers, at: u16, made_up: bool, version: u16) {
    let (capabilities, status) = if made_up {
        (SLOWEST, SLOWEST)
    } else {
        let status = device.word(at + express::LINK_STATUS);
        (device.dword(at + express::LINK_CAPABILITIES), u32::from(status))
    };
    let space = config.space_mut();
    space.preset(at + express::LINK_CAPABILITIES, Width::B4, capabilities);
    space.preset(at + express::LINK_STATUS, Width::B2, status & 0xffff);
    space.allow(at + express::LINK_CONTROL, Width::B2, LINK_CONTROL);
    if version > 1 {
        let speeds = if made_up { 2 } else { device.dword(at + express::LINK_CAPABILITIES_2) };
        let target = if made_up { 1 } else { device.word(at + express::LINK_CONTROL_2) & 0xf };
        space.preset(at + express::LINK_CAPABILITIES_2, Width::B4, speeds);
        space.preset(at + express::LINK_CONTROL_2, Width::B2, target.into());
        space.allow(at + express::LINK_CONTROL_2, Width::B2, 0xf);
    }
}
