//! COM1: a 16550A at ports 0x3f8 to 0x3ff with IRQ 4, the registers being those of vm-superio.
//!
//! What the guest sends goes to an [`Output`]; what it receives is fed by any thread through an
//! [`Input`], which takes no lock and is bounded. The line has no speed: what is sent is gone at once.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use trapline_io::device::Claims;
use trapline_io::{Device, Fault, Region, Width};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use super::attention::{Attention, Poke};
use super::isa;
use super::output::{Output, TAIL};
use crate::host::IrqLine;

/// First port of COM1.
const COM1: u16 = 0x3f8;

/// Offsets of registers.
const RECEIVE: u8 = 0;
const MODEM_CONTROL: u8 = 4;
/// Modem control: what is sent is received, and the line is cut off.
const LOOP: u8 = 1 << 4;

/// How many bytes wait for a guest that does not read.
const WAITING: usize = 4096;

/// The line's interrupt. The model announces each cause once, so a pulse of an edge-triggered input.
struct Pulse(Arc<dyn IrqLine>);

impl Trigger for Pulse {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(true);
        self.0.set(false);
        Ok(())
    }
}

/// The device.
pub struct Uart {
    /// What is sent lands in a buffer that is emptied after each access.
    registers: Serial<Pulse, NoEvents, Vec<u8>>,
    irq: Arc<dyn IrqLine>,
    output: Output,
    input: Receiver<u8>,
    attention: Attention,
    /// Whether a call is due that will write the beginning of a line.
    armed: bool,
}

impl std::fmt::Debug for Uart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uart").field("output", &self.output).finish_non_exhaustive()
    }
}

/// The other end of the line: feeds what the guest receives. Any thread.
#[derive(Clone, Debug)]
pub struct Input {
    bytes: SyncSender<u8>,
    poke: Poke,
}

impl Input {
    /// Feeds as many of `bytes` as there is room for, and gives how many: a guest that does not read
    /// leaves room for 4096. Never blocks.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let taken = bytes.iter().take_while(|byte| self.bytes.try_send(**byte).is_ok()).count();
        self.poke.poke();
        taken
    }
}

impl Uart {
    /// COM1 on `irq`, ISA interrupt 4, writing to `output`; and what feeds it. The worker must watch
    /// [`Uart::attention`].
    ///
    /// # Errors
    /// The kernel has no descriptor to give.
    pub fn com1(output: Output, irq: Arc<dyn IrqLine>) -> io::Result<(Uart, Input)> {
        let (bytes, input) = sync_channel(WAITING);
        let attention = Attention::new()?;
        let feed = Input { bytes, poke: attention.handle() };
        let registers = Serial::new(Pulse(Arc::clone(&irq)), Vec::with_capacity(1));
        Ok((Uart { registers, irq, output, input, attention, armed: false }, feed))
    }

    /// The descriptor to watch for [`Device::attend`].
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn attention(&self) -> io::Result<OwnedFd> {
        self.attention.descriptor()
    }

    /// Moves what was fed to the receiver, as far as it has room. The line is cut off in loop mode.
    fn receive(&mut self) {
        if self.registers.read(MODEM_CONTROL) & LOOP != 0 {
            return;
        }
        while self.registers.fifo_capacity() > 0 {
            let Ok(byte) = self.input.try_recv() else { return };
            let _ = self.registers.enqueue_raw_bytes(&[byte]);
        }
    }

    /// The register at a byte offset that the claim bounds.
    fn register(at: u64) -> Option<u8> {
        u8::try_from(at).ok().filter(|at| *at < 8)
    }
}

impl Device for Uart {
    fn read(&mut self, _: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        Ok(isa::read(offset, width, |at| {
            let Some(at) = Uart::register(at) else { return 0xff };
            let value = self.registers.read(at);
            if at == RECEIVE {
                self.receive();
            }
            value
        }))
    }

    fn write(&mut self, _: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        isa::write(offset, width, value, |at, byte| {
            let Some(at) = Uart::register(at) else { return };
            // Neither the buffer nor the interrupt can fail.
            let _ = self.registers.write(at, byte);
            for byte in self.registers.writer_mut().drain(..) {
                self.output.push(byte);
            }
            if at == MODEM_CONTROL {
                self.receive();
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
        self.registers = Serial::new(Pulse(Arc::clone(&self.irq)), Vec::with_capacity(1));
        self.irq.set(false);
        self.receive();
    }

    fn claims(&self) -> Claims {
        isa::claims(&[(COM1, COM1 + 7, 0)])
    }

    fn attend(&mut self) {
        self.attention.clear();
        self.armed = false;
        self.output.flush();
        self.receive();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::attention::readable_within;
    use super::super::output::Paper;
    use super::super::testing::{Line, low};
    use super::*;

    const P: Region = isa::PORTS;
    const LINE_STATUS: u64 = 5;
    const READY: u64 = 1;

    fn uart() -> (Uart, Input, Paper, Arc<Line>) {
        let (paper, line) = (Paper::default(), Arc::new(Line::default()));
        let (uart, input) = Uart::com1(Output::new(Box::new(paper.clone())), line.clone()).unwrap();
        (uart, input, paper, line)
    }

    fn get(uart: &mut Uart, register: u64) -> u64 {
        uart.read(P, register, Width::B1).unwrap()
    }

    fn put(uart: &mut Uart, register: u64, value: u64) {
        uart.write(P, register, Width::B1, value).unwrap();
    }

    #[test]
    fn what_is_sent_shows_by_lines() {
        let (mut uart, _input, paper, _line) = uart();
        b"login: x\nabc".iter().for_each(|byte| put(&mut uart, 0, (*byte).into()));
        assert_eq!(paper.text(), "login: x\n");
        assert!(readable_within(uart.attention().unwrap(), Duration::from_secs(5)));
        uart.attend();
        assert_eq!(paper.text(), "login: x\nabc");
    }

    #[test]
    fn more_input_than_the_fifo_holds_arrives_whole_and_interrupts() {
        let (mut uart, input, _paper, line) = uart();
        put(&mut uart, 1, 1);
        let sent: Vec<u8> = (0..=255).cycle().take(1000).collect();
        assert_eq!(input.send(&sent), 1000);
        assert!(readable_within(uart.attention().unwrap(), Duration::from_secs(5)));
        uart.attend();
        assert!(line.rises() > 0);
        let mut received = Vec::new();
        while get(&mut uart, LINE_STATUS) & READY != 0 {
            received.push(low(get(&mut uart, 0)));
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn input_is_bounded_and_kept_during_a_loop_test() {
        let (mut uart, input, _paper, _line) = uart();
        assert_eq!(input.send(&vec![7; 2 * WAITING]), WAITING);
        put(&mut uart, u64::from(MODEM_CONTROL), u64::from(LOOP));
        uart.attend();
        assert_eq!(get(&mut uart, LINE_STATUS) & READY, 0);
        put(&mut uart, 0, 0x42);
        assert_eq!(get(&mut uart, 0), 0x42);
        put(&mut uart, u64::from(MODEM_CONTROL), 0);
        assert_eq!(get(&mut uart, 0), 7);
    }

    #[test]
    fn a_reset_clears_the_registers() {
        let (mut uart, _input, _paper, line) = uart();
        put(&mut uart, 7, 0x5a);
        uart.reset();
        assert_eq!(get(&mut uart, 7), 0);
        assert!(!line.level());
    }
}
