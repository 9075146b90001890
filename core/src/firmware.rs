//! What the guest's firmware is given: its own image, and everything that it reads through fw_cfg.
//!
//! Most of it is bytes made by pure functions, and nothing here touches a guest. The one that touches devices is
//! [`placement::survey`], which sizes their registers before the machine runs.
//!
//! * [`image`]: finds SeaBIOS and the option ROM that starts a kernel, and checks them.
//! * [`e820`]: how RAM is split around the 32-bit hole, and the memory map.
//! * [`acpi`], [`loader`]: the ACPI tables, and the script by which the firmware places them.
//! * [`igd`]: what belongs to integrated graphics of Intel's.
//! * [`smbios`]: the description of the machine for its owner.
//! * [`linux`]: a kernel, its initial ram disk and command line, for the option ROM.
//! * [`placement`]: where SeaBIOS will put base address registers, and what does not fit.
//! * [`boot`]: all of it as a list of fw_cfg items.

pub mod acpi;
pub mod boot;
pub mod e820;
pub mod igd;
pub mod image;
pub mod linux;
pub mod loader;
pub mod placement;
pub mod smbios;
