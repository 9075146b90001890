//! A Linux kernel for the option ROM `linuxboot_dma.bin`, which copies it from fw_cfg to where the
//! addresses beside it say, and enters it in real mode: so the kernel finds the adapter by the video
//! BIOS, as on a physical machine.
//!
//! The image is a bzImage (boot protocol 2.02 or later, loaded high). Its setup code goes to 0x10000, the
//! command line to 0x20000, the protected mode part to 1 MiB, the initial ram disk as high as the kernel
//! allows.

use thiserror::Error;
use trapline_devices::platform::fw_cfg::{Items, key};
use trapline_devices::q35::RamSplit;

/// Where the real mode part goes.
const SETUP: u32 = 0x1_0000;
/// Where the command line goes.
const COMMAND_LINE: u32 = 0x2_0000;
/// Where the protected mode part goes.
const KERNEL: u32 = 0x10_0000;
/// Kept free at the end of low RAM, where SeaBIOS puts the ACPI tables.
const FIRMWARE_RESERVE: u64 = 1 << 20;
/// Bytes that the setup code may take, so that heap and stack fit below the command line.
const MAX_SETUP: usize = 0xc000;
const SECTOR: usize = 512;

/// Offsets in the setup header (the kernel's Documentation/arch/x86/boot.rst).
mod header {
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const BOOT_FLAG: usize = 0x1fe;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const HEAP_END: usize = 0x224;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    /// The header of the latest protocol ends here.
    pub const END: usize = 0x270;
    pub const LOADED_HIGH: u8 = 1 << 0;
    pub const CAN_USE_HEAP: u8 = 1 << 7;
    /// A loader without a number of its own.
    pub const UNREGISTERED: u8 = 0xff;
}

/// Why a kernel cannot be started.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum LinuxError {
    /// No bzImage at all.
    #[error("not a Linux bzImage: {0}")]
    NotAKernel(&'static str),
    /// The boot protocol is older than 2.02, or the kernel is loaded low.
    #[error("the kernel's boot protocol is {}.{:02}, but 2.02 or later and a bzImage are needed", .0 >> 8, .0 & 0xff)]
    TooOld(u16),
    /// The setup code leaves no room for heap and stack.
    #[error("the kernel's setup code has {0} bytes, but at most 49152 fit")]
    SetupSize(usize),
    /// The command line is longer than the kernel takes.
    #[error("the command line has {len} bytes, but this kernel takes at most {limit}")]
    CommandLine {
        /// Its length without the closing NUL.
        len: usize,
        /// What the kernel takes.
        limit: usize,
    },
    /// The command line has a NUL inside.
    #[error("the command line holds a NUL byte")]
    Nul,
    /// An initial ram disk was given that has no bytes.
    #[error("the initial ram disk is empty")]
    EmptyRamDisk,
    /// Kernel and initial ram disk do not fit the RAM below 4 GiB.
    #[error("kernel and initial ram disk need {need} MiB of low memory, but the machine has {have} MiB")]
    Memory {
        /// MiB needed.
        need: u64,
        /// MiB there.
        have: u64,
    },
}

/// A kernel, checked and patched, ready for fw_cfg.
#[derive(Clone, PartialEq, Eq)]
pub struct Linux {
    setup: Vec<u8>,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    initrd_address: u32,
    command_line: Vec<u8>,
}

impl std::fmt::Debug for Linux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Linux {{ {} + {} bytes, initrd {} }}",
            self.setup.len(),
            self.kernel.len(),
            self.initrd.len()
        )
    }
}

impl Linux {
    /// Takes a bzImage, an initial ram disk (`None` for none) and a command line for a machine with `ram`.
    ///
    /// # Errors
    /// It is no bzImage that this boot protocol knows, or one of the three is too large.
    pub fn new(
        image: &[u8],
        initrd: Option<&[u8]>,
        command_line: &str,
        ram: RamSplit,
    ) -> Result<Self, LinuxError> {
        let (setup, kernel) = split(image)?;
        if initrd.is_some_and(<[u8]>::is_empty) {
            return Err(LinuxError::EmptyRamDisk);
        }
        let initrd = initrd.unwrap_or_default();
        let mut setup = setup.to_vec();
        let command_line = checked_command_line(&setup, command_line)?;
        let initrd_address = place(&setup, kernel.len() as u64, initrd.len() as u64, ram)?;
        patch(&mut setup, initrd_address, initrd.len());
        Ok(Linux { setup, kernel: kernel.to_vec(), initrd: initrd.to_vec(), initrd_address, command_line })
    }

    /// Adds the items that the option ROM reads: address, size and bytes of each part.
    pub fn add_items(self, items: &mut Items) {
        let parts = [
            ([key::SETUP_ADDRESS, key::SETUP_SIZE, key::SETUP_DATA], SETUP, self.setup),
            ([key::KERNEL_ADDRESS, key::KERNEL_SIZE, key::KERNEL_DATA], KERNEL, self.kernel),
            ([key::INITRD_ADDRESS, key::INITRD_SIZE, key::INITRD_DATA], self.initrd_address, self.initrd),
            ([key::CMDLINE_ADDRESS, key::CMDLINE_SIZE, key::CMDLINE_DATA], COMMAND_LINE, self.command_line),
        ];
        for ([address_key, size_key, data_key], address, bytes) in parts {
            // Every part was placed below 4 GiB, so that its size fits.
            let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            items.set(address_key, address.to_le_bytes());
            items.set(size_key, size.to_le_bytes());
            items.set(data_key, bytes);
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |raw| u16::from_le_bytes([raw[0], raw[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// The real mode and the protected mode part of a bzImage.
fn split(image: &[u8]) -> Result<(&[u8], &[u8]), LinuxError> {
    if image.len() < header::END {
        return Err(LinuxError::NotAKernel("it is too short for a setup header"));
    }
    if u16_at(image, header::BOOT_FLAG) != 0xaa55 || image[header::MAGIC..header::MAGIC + 4] != *b"HdrS" {
        return Err(LinuxError::NotAKernel("it has no setup header"));
    }
    let version = u16_at(image, header::VERSION);
    if version < 0x202 || image[header::LOADFLAGS] & header::LOADED_HIGH == 0 {
        return Err(LinuxError::TooOld(version));
    }
    let sectors = match image[header::SETUP_SECTS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let setup = (sectors + 1) * SECTOR;
    if setup > MAX_SETUP {
        return Err(LinuxError::SetupSize(setup));
    }
    match image.split_at_checked(setup) {
        Some((setup, kernel)) if !kernel.is_empty() => Ok((setup, kernel)),
        _ => Err(LinuxError::NotAKernel("it ends before its protected mode part")),
    }
}

/// The command line with its closing NUL.
fn checked_command_line(setup: &[u8], text: &str) -> Result<Vec<u8>, LinuxError> {
    let limit = match u16_at(setup, header::VERSION) {
        ..0x206 => 255,
        _ => u32_at(setup, header::CMDLINE_SIZE),
    };
    // Between the command line and the end of low memory lie the firmware's variables.
    let limit = usize::try_from(limit.min(0x1_0000)).unwrap_or(255);
    if text.len() > limit {
        return Err(LinuxError::CommandLine { len: text.len(), limit });
    }
    if text.contains('\0') {
        return Err(LinuxError::Nul);
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}

/// Where the initial ram disk goes: the highest page-aligned place that kernel, RAM and firmware leave.
fn place(setup: &[u8], kernel: u64, initrd: u64, ram: RamSplit) -> Result<u32, LinuxError> {
    let version = u16_at(setup, header::VERSION);
    let mut kernel_end = u64::from(KERNEL) + kernel;
    if version >= 0x20a {
        // Where the kernel unpacks itself.
        let preferred = u64::from(u32_at(setup, header::PREF_ADDRESS));
        kernel_end = kernel_end.max(preferred + u64::from(u32_at(setup, header::INIT_SIZE)));
    }
    let highest = match version {
        ..0x203 => 0x37ff_ffff,
        _ => u64::from(u32_at(setup, header::INITRD_ADDR_MAX)),
    };
    let end = ram.low.saturating_sub(FIRMWARE_RESERVE).min(highest.saturating_add(1));
    let start = end.checked_sub(initrd).map(|start| start & !0xfff);
    match start.filter(|start| *start >= kernel_end).and_then(|start| u32::try_from(start).ok()) {
        Some(start) => Ok(start),
        None => Err(LinuxError::Memory {
            need: (kernel_end + initrd + FIRMWARE_RESERVE).div_ceil(1 << 20),
            have: ram.low >> 20,
        }),
    }
}

/// Fills in what the boot protocol wants of a boot loader.
fn patch(setup: &mut [u8], initrd_address: u32, initrd: usize) {
    let mut put = |at: usize, value: u32| setup[at..at + 4].copy_from_slice(&value.to_le_bytes());
    // Placed below 4 GiB, so that the size fits.
    let size = u32::try_from(initrd).unwrap_or(u32::MAX);
    put(header::RAMDISK_IMAGE, if size == 0 { 0 } else { initrd_address });
    put(header::RAMDISK_SIZE, size);
    put(header::CMD_LINE_PTR, COMMAND_LINE);
    let heap_end = (COMMAND_LINE - SETUP - 0x200).to_le_bytes();
    setup[header::HEAP_END..header::HEAP_END + 2].copy_from_slice(&heap_end[..2]);
    setup[header::TYPE_OF_LOADER] = header::UNREGISTERED;
    setup[header::LOADFLAGS] |= header::CAN_USE_HEAP;
}

#[cfg(test)]
mod tests;
