//! The ACPI tables, as one blob `etc/acpi/tables` and the root pointer `etc/acpi/rsdp`.
//!
//! The windows of the PCI root in the DSDT depend on where the firmware placed the BARs, which it
//! does after it has read the sizes of all files. So the blob has one length whatever the windows,
//! and only the DSDT's bytes depend on them: it is the last table, so that the root pointer and the
//! linker script never change. Layout of the blob:
//!
//! ```text
//! FACS (64 bytes, aligned to 64) | FADT | MADT | MCFG | WAET | RSDT | XSDT | DSDT | zeros
//! ```

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use trapline_devices::q35::RamSplit;
use trapline_io::{Gpa, Span};

use super::loader::{Script, Zone};

/// File name of the blob with all tables.
pub const TABLES: &str = "etc/acpi/tables";
/// File name of the root pointer.
pub const RSDP: &str = "etc/acpi/rsdp";
/// File name of the linker script.
pub const LOADER: &str = "etc/table-loader";

/// Configuration space of all 256 buses, where SeaBIOS puts it.
pub(crate) const ECAM: u32 = 0xb000_0000;
const ECAM_LEN: u32 = 0x1000_0000;
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
/// I/O base of the ICH9 power management block, as SeaBIOS programs it when a linker script exists.
const PM_BASE: u16 = 0x600;
const SCI: u16 = 9;
const OEM: [u8; 6] = *b"TRAPLN";
const OEM_TABLE: [u8; 8] = *b"TRAPLINE";
const OEM_REVISION: u32 = 1;
/// The header that all tables but FACS and RSDP share.
const HEADER: usize = 36;

/// Where the PCI root may place memory BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The 32-bit window: first and last address.
    pub low: (u32, u32),
    /// The 64-bit window, if a BAR lies above 4 GiB.
    pub high: Option<Span<Gpa>>,
}

impl Default for Windows {
    /// The 32-bit window of SeaBIOS, 0xc0000000-0xfebfffff, and none above 4 GiB.
    fn default() -> Self {
        Windows { low: (0xc000_0000, 0xfebf_ffff), high: None }
    }
}

/// What the tables must know of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// Processors, with APIC identifiers from 0 on: 255, the last number, would be the broadcast.
    pub cpus: u8,
    /// Where RAM lies.
    pub ram: RamSplit,
    /// Where memory BARs lie.
    pub windows: Windows,
    /// An i8042 with a keyboard answers at ports 0x60 and 0x64.
    pub keyboard: bool,
    /// A UART answers at ports 0x3f8-0x3ff.
    pub serial: bool,
}

/// The three files that describe the machine to ACPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Contents of [`RSDP`].
    pub rsdp: Vec<u8>,
    /// Contents of [`TABLES`]; its length does not depend on the windows.
    pub tables: Vec<u8>,
    /// Contents of [`LOADER`].
    pub loader: Vec<u8>,
}

/// Builds the tables for `platform` as it is now.
pub fn build(platform: &Platform) -> Tables {
    let mut blob = Blob::new();
    let facs = blob.append(&FACS::new());
    let fadt = blob.append(&fadt(platform));
    let mut others = vec![fadt];
    others.push(blob.append(&madt(platform)));
    others.push(blob.append(&mcfg()));
    others.push(blob.append(&waet()));
    let rsdt = blob.append(&pointer_table(*b"RSDT", &others, 4));
    let xsdt = blob.append(&pointer_table(*b"XSDT", &others, 8));
    let dsdt = blob.append(&dsdt::table(platform));
    blob.put_pointer(fadt + 36, facs, 4);
    blob.put_pointer(fadt + 40, dsdt, 4);
    blob.put_pointer(fadt + 140, dsdt, 8);

    let mut script = Script::new();
    script.allocate(RSDP, 16, Zone::Low);
    script.allocate(TABLES, 64, Zone::High);
    for (offset, size) in [(36, 4), (40, 4), (140, 8)] {
        script.add_pointer(TABLES, narrow(fadt + offset), size, TABLES);
    }
    blob.have_checksum_mended(&mut script, fadt);
    for (table, size) in [(rsdt, 4u8), (xsdt, 8)] {
        for index in 0..others.len() {
            let at = table + HEADER + index * usize::from(size);
            script.add_pointer(TABLES, narrow(at), size, TABLES);
        }
        blob.have_checksum_mended(&mut script, table);
    }
    let rsdp = root_pointer(rsdt, xsdt, &mut script);
    blob.pad(dsdt + dsdt::longest(platform));
    Tables { rsdp, tables: blob.bytes, loader: script.into_bytes() }
}

/// Offsets in the blob fit 32 bits: the tables of 255 processors are below 64 KiB.
fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).expect("the tables are far below 4 GiB")
}

/// The tables one after another.
struct Blob {
    bytes: Vec<u8>,
}

impl Blob {
    fn new() -> Self {
        Blob { bytes: Vec::new() }
    }

    /// Appends a table at a multiple of 8 and says where it lies.
    fn append(&mut self, table: &dyn Aml) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.bytes.len();
        table.to_aml_bytes(&mut self.bytes);
        at
    }

    /// Writes the offset of a table where the firmware will add the blob's address to it.
    fn put_pointer(&mut self, at: usize, target: usize, size: usize) {
        let value = u64::from(narrow(target)).to_le_bytes();
        self.bytes[at..at + size].copy_from_slice(&value[..size]);
    }

    /// Has the firmware compute the checksum of a table with pointers inside.
    fn have_checksum_mended(&mut self, script: &mut Script, table: usize) {
        let length = self.bytes[table + 4..table + 8].try_into().expect("four bytes");
        self.bytes[table + 9] = 0;
        script.add_checksum(TABLES, narrow(table + 9), narrow(table), u32::from_le_bytes(length));
    }

    /// Fills the blob with zeros to whole pages behind `end`.
    fn pad(&mut self, end: usize) {
        self.bytes.resize(end.next_multiple_of(4096), 0);
    }
}

fn io_register(offset: u16, bytes: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bytes * 8, 0, access, u64::from(PM_BASE + offset))
}

/// The fixed hardware (ACPI 6.5 section 5.2.9): the ICH9 power management block.
fn fadt(platform: &Platform) -> FADT {
    let base = u32::from(PM_BASE);
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::RtcS4)
        .flag(Flags::ResetRegSup)
        .flag(Flags::UsePlatformClock)
        .gpe_info(base + 0x20, 0, 16, 0, 0);
    fadt.sci_int = SCI.into();
    fadt.smi_cmd = 0xb2.into();
    fadt.acpi_enable = 2;
    fadt.acpi_disable = 3;
    fadt.pm1a_evt_blk = base.into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = (base + 4).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = (base + 8).into();
    fadt.pm_tmr_len = 4;
    // No power states but C1: latencies above the limits of sections 5.2.9 say so.
    fadt.p_lvl2_lat = 0xfff.into();
    fadt.p_lvl3_lat = 0xfff.into();
    fadt.century = 0x32;
    // Bit 1: an 8042 is there. Bit 2, "no VGA", stays clear: the adapter is the whole point.
    fadt.iapc_boot_arch = (u16::from(platform.keyboard) << 1).into();
    fadt.reset_reg = GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, 0xcf9);
    fadt.reset_value = 0x0f;
    fadt.x_pm1a_evt_blk = io_register(0, 4, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io_register(4, 2, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io_register(8, 4, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = io_register(0x20, 16, AccessSize::ByteAccess);
    fadt.finalize()
}

fn table(signature: [u8; 4], revision: u8) -> Sdt {
    Sdt::new(signature, narrow(HEADER), revision, OEM, OEM_TABLE, OEM_REVISION)
}

/// Processors and interrupt controllers (section 5.2.12).
fn madt(platform: &Platform) -> Sdt {
    let mut madt = table(*b"APIC", 3);
    madt.append_slice(&LOCAL_APIC.to_le_bytes());
    // PCAT_COMPAT: there are two 8259 as well.
    madt.append_slice(&1u32.to_le_bytes());
    for cpu in 0..platform.cpus {
        madt.append_slice(&[0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    let mut io_apic = vec![1, 12, 0, 0];
    io_apic.extend_from_slice(&IO_APIC.to_le_bytes());
    io_apic.extend_from_slice(&0u32.to_le_bytes());
    madt.append_slice(&io_apic);
    // The timer arrives at pin 2; 5, 9, 10 and 11 are level triggered and active high.
    for (irq, gsi, flags) in [(0, 2, 0), (5, 5, 0x0d), (9, 9, 0x0d), (10, 10, 0x0d), (11, 11, 0x0d)] {
        madt.append_slice(&[2, 10, 0, irq, gsi, 0, 0, 0, flags, 0]);
    }
    // LINT1 of every processor is the non-maskable interrupt.
    madt.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    madt
}

fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(u64::from(ECAM), 0, 0, 0xff);
    mcfg
}

/// What an operating system of Microsoft need not do on emulated hardware: the power management
/// timer can be read once.
fn waet() -> Sdt {
    let mut waet = table(*b"WAET", 1);
    waet.append_slice(&2u32.to_le_bytes());
    waet
}

/// An RSDT (entries of 4 bytes) or XSDT (8 bytes) over the tables at these offsets.
fn pointer_table(signature: [u8; 4], targets: &[usize], size: usize) -> Sdt {
    let mut root = table(signature, 1);
    for target in targets {
        root.append_slice(&u64::from(narrow(*target)).to_le_bytes()[..size]);
    }
    root
}

/// The root pointer, revision 2: the RSDT for old readers, the XSDT for new ones.
fn root_pointer(rsdt: usize, xsdt: usize, script: &mut Script) -> Vec<u8> {
    let mut bytes = Vec::new();
    Rsdp::new(OEM, u64::from(narrow(xsdt))).to_aml_bytes(&mut bytes);
    bytes[16..20].copy_from_slice(&narrow(rsdt).to_le_bytes());
    bytes[8] = 0;
    bytes[32] = 0;
    script.add_pointer(RSDP, 16, 4, TABLES);
    script.add_pointer(RSDP, 24, 8, TABLES);
    script.add_checksum(RSDP, 8, 0, 20);
    script.add_checksum(RSDP, 32, 0, 36);
    bytes
}

#[cfg(test)]
mod tests;
