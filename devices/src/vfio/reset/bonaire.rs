//! Bringing AMD's Bonaire and Hawaii back to the state of power-on. A bus reset leaves these chips unusable; their
//! own controller (SMC) can reset them while its firmware runs. Used where the kernel knows no way.
//!
//! BAR 5 has the registers; those of the controller are reached by an index and a data register in it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use trapline_io::{Fault, Region, Width};

use crate::assigned::Backend;
use crate::pci::spec::{self, Command};

/// Vendor and the device ids: Bonaire's, then Hawaii's.
const VENDOR: u32 = 0x1002;
const DEVICES: [u32; 18] = [
    0x6649, 0x6650, 0x6651, 0x6658, 0x665c, 0x665d, 0x67a0, 0x67a1, 0x67a2, 0x67a8, 0x67a9, 0x67aa, 0x67b0,
    0x67b1, 0x67b8, 0x67b9, 0x67ba, 0x67be,
];

const BAR: Region = Region::bar(5);
const INDEX: u64 = 0x200;
const DATA: u64 = 0x204;
/// All ones while the chip is in reset.
const MEMORY_SIZE: u64 = 0x5428;
/// Registers of the controller: reset (bit 0), clock (bit 0 stops it), its program counter, and where that is
/// when the firmware runs.
const RESET: u32 = 0x8000_0000;
const CLOCK: u32 = 0x8000_0004;
const COUNTER: u32 = 0x8000_0370;
const RUNNING: u32 = 0x2_0100;
/// What a reset takes in: all of the chip, or graphics alone (bit 6 of the fuses, bit 1 of the other).
const FUSES: u32 = 0xc00c_0000;
const SCOPE: u32 = 0xc000_0010;
/// In configuration space, the register that starts a reset, and the value that does.
const TRIGGER: u64 = 0x7c;
const START: u64 = 0x39d5_e86b;
/// Before the chip is looked at again, and for how long that goes on: a chip that is late is no failure.
const FIRST_LOOK: Duration = Duration::from_micros(100);
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether a function is one of these, by device id in the upper half and vendor in the lower.
pub fn is_one(ids: u32) -> bool {
    ids & 0xffff == VENDOR && DEVICES.contains(&(ids >> 16))
}

/// Resets the chip, and leaves it decoding nothing. Takes 100 ms at most.
///
/// # Errors
/// In words; the chip is as it was, or does not answer.
pub fn reset(card: &mut dyn Backend) -> Result<(), &'static str> {
    command(card, Command::new().with_memory(true)).map_err(|_| SILENT)?;
    let done = by_controller(card);
    command(card, Command::new()).map_err(|_| SILENT)?;
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err("its firmware does not run"),
        Err(_) => Err(SILENT),
    }
}

const SILENT: &str = "it does not answer";

/// False if the firmware does not run.
fn by_controller(card: &mut dyn Backend) -> Result<bool, Fault> {
    if get(card, CLOCK)? & 1 == 1 || get(card, COUNTER)? < RUNNING {
        return Ok(false);
    }
    // All of the chip is to be reset.
    let fused = get(card, FUSES)? >> 6 & 1;
    let scope = get(card, SCOPE)?;
    if scope >> 1 & 1 == fused {
        set(card, SCOPE, scope ^ 1 << 1)?;
    }
    card.write(Region::CONFIG, TRIGGER, Width::B4, START)?;
    sleep(FIRST_LOOK);
    let start = Instant::now();
    while card.read(BAR, MEMORY_SIZE, Width::B4)? == Width::B4.all_ones() && start.elapsed() < PATIENCE {
        sleep(Duration::from_micros(1));
    }
    // The firmware is not what the next driver expects to run.
    for register in [RESET, CLOCK] {
        let value = get(card, register)?;
        set(card, register, value | 1)?;
    }
    Ok(true)
}

fn command(card: &mut dyn Backend, command: Command) -> Result<(), Fault> {
    card.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, command.into_bits().into())
}

fn get(card: &mut dyn Backend, register: u32) -> Result<u32, Fault> {
    card.write(BAR, INDEX, Width::B4, register.into())?;
    card.read(BAR, DATA, Width::B4).map(|value| (value & 0xffff_ffff) as u32)
}

/// Writes a register, and reads it back so that the write has arrived.
fn set(card: &mut dyn Backend, register: u32, value: u32) -> Result<(), Fault> {
    card.write(BAR, INDEX, Width::B4, register.into())?;
    card.write(BAR, DATA, Width::B4, value.into())?;
    card.read(BAR, DATA, Width::B4).map(drop)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::assigned::backend::RegionInfo;

    /// A chip that answers some reads with all ones while it is reset.
    #[derive(Default)]
    struct Chip {
        registers: BTreeMap<u32, u32>,
        index: u32,
        busy: u32,
        written: Vec<(u32, u64)>,
    }

    const CONFIG: u32 = 0;

    impl Backend for Chip {
        fn name(&self) -> &str {
            "chip"
        }
        fn regions(&self) -> &[RegionInfo] {
            &[]
        }
        fn resettable(&self) -> bool {
            true
        }
        fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
            assert_eq!((region, width), (BAR, Width::B4));
            match offset {
                DATA => Ok(self.registers.get(&self.index).copied().unwrap_or(0).into()),
                MEMORY_SIZE if self.busy > 0 => {
                    self.busy -= 1;
                    Ok(Width::B4.all_ones())
                }
                _ => Ok(0),
            }
        }
        fn write(&mut self, region: Region, offset: u64, _: Width, value: u64) -> Result<(), Fault> {
            let low = (value & 0xffff_ffff) as u32;
            match (region, offset) {
                (BAR, INDEX) => self.index = low,
                (BAR, DATA) => {
                    self.registers.insert(self.index, low);
                    self.written.push((self.index, value));
                }
                (_, at) => self.written.push((CONFIG, at << 32 | value)),
            }
            Ok(())
        }
        fn read_bytes(&mut self, _: Region, _: u64, _: &mut [u8]) -> Result<(), Fault> {
            Err(Fault::NoRegister)
        }
    }

    fn chip(registers: &[(u32, u32)]) -> Chip {
        let running = [(COUNTER, 0x2_0100)];
        Chip { registers: running.iter().chain(registers).copied().collect(), busy: 3, ..Chip::default() }
    }

    const ON: (u32, u64) = (CONFIG, 4 << 32 | 2);
    const OFF: (u32, u64) = (CONFIG, 4 << 32);
    const GO: (u32, u64) = (CONFIG, 0x7c << 32 | 0x39d5_e86b);

    #[test]
    fn a_running_controller_resets_all_of_the_chip() {
        let mut graphics_alone = chip(&[(FUSES, 0x40), (SCOPE, 0x12)]);
        assert_eq!(reset(&mut graphics_alone), Ok(()));
        assert_eq!(graphics_alone.written, [ON, (SCOPE, 0x10), GO, (RESET, 1), (CLOCK, 1), OFF]);
        assert_eq!(graphics_alone.busy, 0, "it is waited for");
        let mut whole = chip(&[(FUSES, 0x40), (SCOPE, 0x10), (RESET, 8)]);
        assert_eq!(reset(&mut whole), Ok(()));
        assert_eq!(whole.written, [ON, GO, (RESET, 9), (CLOCK, 1), OFF]);
    }

    #[test]
    fn one_that_does_not_run_is_left_alone() {
        for stopped in [[(CLOCK, 1)], [(COUNTER, 0x2_00fc)]] {
            let mut chip = chip(&stopped);
            assert!(reset(&mut chip).unwrap_err().contains("does not run"));
            assert_eq!(chip.written, [ON, OFF]);
        }
    }

    #[test]
    fn they_are_known_by_their_ids() {
        assert!(is_one(0x67b1_1002) && is_one(0x6649_1002));
        assert!(!is_one(0x67b1_10de) && !is_one(0x68f9_1002));
    }
}
