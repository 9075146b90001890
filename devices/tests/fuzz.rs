//! The fuzz bodies of devices, on the stable compiler.

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    dead_code,
    reason = "written for a fuzzer"
)]
#[path = "../fuzz/src/lib.rs"]
mod fuzz;

// The body of quirks looks for its card here.
use fuzz::adapter;

#[allow(clippy::cast_possible_truncation, reason = "random numbers are cut to size")]
#[path = "../../io/fuzz/src/driver.rs"]
mod driver;

#[path = "rom_found/driver.rs"]
mod driver_found;

/// Two bytes of each id and one of what to do; behind it one image of 512 bytes with its PCI data structure, for a BIOS
/// or with a compressed driver for UEFI.
const ROMS: &[&[u8]] = &[&IMAGE, &COMPRESSED];

const IMAGE: [u8; 517] = {
    let mut rom = [0; 517];
    (rom[0], rom[1], rom[2], rom[3]) = (0x34, 0x12, 0x11, 0x11);
    (rom[5], rom[6], rom[7], rom[0x1d]) = (0x55, 0xaa, 1, 0x1c);
    (rom[0x21], rom[0x22], rom[0x23], rom[0x24]) = (b'P', b'C', b'I', b'R');
    (rom[0x25], rom[0x26], rom[0x27], rom[0x28]) = (0x34, 0x12, 0x11, 0x11);
    (rom[0x2b], rom[0x31], rom[0x36]) = (0x18, 1, 0x80);
    rom
};

const COMPRESSED: [u8; 517] = {
    let mut rom = IMAGE;
    rom[0x35] = 3;
    (rom[0x09], rom[0x0a], rom[0x0d], rom[0x0f], rom[0x10]) = (0xf1, 0x0e, 0x0b, 0x64, 0x86);
    (rom[0x11], rom[0x1b]) = (1, 0x40);
    let mut at = 0;
    while at < driver_found::DRIVER.len() {
        rom[0x45 + at] = driver_found::DRIVER[at];
        at += 1;
    }
    rom
};

/// A header of vfio-user, and a region access: what is decoded is chosen by the byte before.
const MESSAGES: &[&[u8]] = &[
    &[9, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0],
    &[30, 1, 0, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];

#[test]
fn block() {
    driver::run("block", fuzz::block::run, &[]);
}

#[test]
fn chipset() {
    driver::run("chipset", fuzz::chipset::run, &[]);
}

#[test]
fn client() {
    driver::run("client", fuzz::client::run, &[]);
}

#[test]
fn function() {
    driver::run("function", fuzz::function::run, &[]);
}

#[test]
fn config() {
    driver::run("config", fuzz::config::run, &[]);
}

#[test]
fn fw_cfg() {
    driver::run("fw_cfg", fuzz::fw_cfg::run, &[]);
}

#[test]
fn platform() {
    driver::run("platform", fuzz::platform::run, &[]);
}

#[test]
fn quirks() {
    driver::run("quirks", fuzz::quirks::run, &[]);
}

#[test]
fn rom() {
    driver::run("rom", fuzz::rom::run, ROMS);
}

#[test]
fn server() {
    driver::run("server", fuzz::server::run, &[]);
}

#[test]
fn snapshot() {
    driver::run("snapshot", fuzz::snapshot::run, &[]);
}

#[test]
fn vga() {
    driver::run("vga", fuzz::vga::run, &[]);
}

#[test]
fn window() {
    driver::run("window", fuzz::window::run, &[]);
}

#[test]
fn wire() {
    driver::run("wire", fuzz::wire::run, MESSAGES);
}
