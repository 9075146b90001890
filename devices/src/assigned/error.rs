//! Why a device cannot be given to the guest.

use std::path::PathBuf;

/// Why a device cannot be given to the guest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device does not even answer.
    #[error("{device}: its configuration space cannot be read")]
    Config {
        /// Its name.
        device: String,
    },
    /// The device could not be brought to a known state.
    #[error("{device}: it cannot be reset")]
    Reset {
        /// Its name.
        device: String,
    },
    /// It is a bridge, or nothing.
    #[error("no PCI function with a type 0 header: vendor {vendor:04x}, header type {header}")]
    NotAFunction {
        /// What its Vendor ID register holds.
        vendor: u16,
        /// What its Header Type register holds.
        header: u8,
    },
    /// A base address register that cannot be.
    #[error("BAR {index} of {size:#x} bytes does not fit its kind")]
    Bar {
        /// Which one.
        index: u8,
        /// The size of its region.
        size: u64,
    },
    /// Legacy VGA was asked for.
    #[error("{device}: vga=on, but it does not forward legacy VGA (no VGA region)")]
    NoVga {
        /// Its name.
        device: String,
    },
    /// A GPUDirect clique was asked for.
    #[error("{device}: gpudirect-clique= cannot be given: {why}")]
    Clique {
        /// Its name.
        device: String,
        /// Why not.
        why: &'static str,
    },
    /// The ROM file cannot be read.
    #[error("cannot read the ROM file {path}")]
    RomFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The ROM file is none.
    #[error("the ROM file {path} {what}")]
    RomImage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No memory for the ROM.
    #[error("out of memory for the ROM")]
    OutOfMemory,
}
