//! A boot sector that says by one byte on the serial line that it runs.

use super::code::{self, Code};

/// What it sends: a line's end, which no one holds back to collect a line.
pub const MARK: u8 = b'\n';

/// What it does then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Turns the machine off.
    PowerOff,
    /// Halts for good.
    Halt,
}

/// A disk of 1 MiB that starts with the boot sector.
pub fn disk(then: Then) -> Vec<u8> {
    let mut code = Code::at(0x7c00);
    code.op(&[0xba, 0xf8, 0x03]).op(&[0xb0, MARK]).op(&[0xee]); // mov dx, 0x3f8; mov al, '\n'; out dx, al
    match then {
        Then::PowerOff => code.power_off(),
        Then::Halt => {
            code.op(&[0xfa]).op(&[0xf4, 0xeb, 0xfd]); //     cli; wait: hlt; jmp wait
        }
    }
    code::disk(code.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_disk_that_boots() {
        for then in [Then::PowerOff, Then::Halt] {
            let disk = disk(then);
            assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
        }
    }
}
