//! What the clock's memory tells the firmware of the machine.

/// Where the firmware looks for a boot loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BootDevice {
    /// Nowhere.
    #[default]
    None,
    /// Floppy disks.
    Floppy,
    /// Hard disks.
    Disk,
    /// CD and DVD.
    Cd,
    /// The network.
    Network,
}

/// What the memory holds at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cmos {
    /// RAM from address 0 up to below 4 GiB, in bytes.
    pub low_memory: u64,
    /// RAM from 4 GiB on, in bytes.
    pub high_memory: u64,
    /// CPUs, at least one.
    pub cpus: u16,
    /// Where to boot from: first, second, third.
    pub boot: [BootDevice; 3],
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

impl Cmos {
    pub(super) fn memory(&self) -> [u8; 128] {
        let mut memory = [0; 128];
        let mut put = |index: usize, count: usize, value: u64| {
            let most = u64::MAX >> (64 - 8 * count);
            for (cell, byte) in memory.iter_mut().skip(index).zip(&value.min(most).to_le_bytes()[..count]) {
                *cell = *byte;
            }
        };
        // Equipment: a mathematics coprocessor.
        put(0x14, 1, 1 << 1);
        put(0x15, 2, 640);
        let above_1m = self.low_memory.saturating_sub(MIB) / KIB;
        put(0x17, 2, above_1m);
        put(0x30, 2, above_1m);
        put(0x34, 2, self.low_memory.saturating_sub(16 * MIB) / (64 * KIB));
        put(0x5b, 3, self.high_memory / (64 * KIB));
        put(0x5f, 1, u64::from(self.cpus.saturating_sub(1)));
        let [first, second, third] = self.boot.map(|device| device as u64);
        put(0x3d, 1, first | second << 4);
        // Bit 0: a floppy may lack the boot signature.
        put(0x38, 1, 1 | third << 4);
        memory
    }
}
