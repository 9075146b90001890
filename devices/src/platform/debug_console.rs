//! The firmware's debug console: port 0x402. A read answers 0xe9, by which the firmware knows that
//! somebody listens; each byte written is a character.

use std::io;
use std::os::fd::OwnedFd;

use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};

use super::attention::Attention;
use super::isa;
use super::output::{Output, TAIL};

const PORT: u16 = 0x402;
const PRESENT: u8 = 0xe9;

/// The device. A line shows when it ends; the beginning of one after 20 ms, when the worker watches
/// [`DebugConsole::attention`], else with the line.
#[derive(Debug)]
pub struct DebugConsole {
    output: Output,
    attention: Attention,
    /// Whether a call is due that will write the beginning of a line.
    armed: bool,
}

impl DebugConsole {
    /// A console that writes to `output`.
    ///
    /// # Errors
    /// The kernel has no descriptor to give.
    pub fn new(output: Output) -> io::Result<DebugConsole> {
        Ok(DebugConsole { output, attention: Attention::new()?, armed: false })
    }

    /// The descriptor to watch for [`Device::attend`].
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn attention(&self) -> io::Result<OwnedFd> {
        self.attention.descriptor()
    }
}

impl Device for DebugConsole {
    fn read(&mut self, _: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        Ok(isa::read(offset, width, |at| if at == 0 { PRESENT } else { 0xff }))
    }

    fn write(&mut self, _: Region, _: u64, width: Width, value: u64) -> Result<(), Fault> {
        isa::write(0, width, value, |at, byte| {
            if at == 0 {
                self.output.push(byte);
            }
        });
        if self.output.is_pending() && !self.armed {
            self.armed = true;
            self.attention.after(TAIL);
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.output.flush();
    }

    fn claims(&self) -> Claims {
        isa::claims(&[(PORT, PORT, 0)])
    }

    fn attend(&mut self) {
        self.attention.clear();
        self.armed = false;
        self.output.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::attention::readable_within;
    use super::super::output::Paper;
    use super::*;

    const P: Region = isa::PORTS;

    #[test]
    fn a_prompt_without_an_end_of_line_shows_soon() {
        let paper = Paper::default();
        let mut console = DebugConsole::new(Output::new(Box::new(paper.clone()))).unwrap();
        let watched = console.attention().unwrap();
        assert_eq!(console.read(P, 0, Width::B1), Ok(0xe9));
        for byte in b"SeaBIOS\n> " {
            console.write(P, 0, Width::B1, u64::from(*byte)).unwrap();
        }
        assert_eq!(paper.text(), "SeaBIOS\n");
        assert!(readable_within(watched, Duration::from_secs(5)));
        console.attend();
        assert_eq!(paper.text(), "SeaBIOS\n> ");
        assert_eq!(paper.writes(), 2);
    }
}
