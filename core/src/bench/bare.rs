//! The baselines: the same guest code in a loop that does nothing but `KVM_RUN`, and perhaps a `pread`;
//! and the `pread` alone.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use parking_lot::Mutex;
use trapline_devices::legacy;
use trapline_io::device::DirectKind;
use trapline_io::file::FileRegion;
use trapline_io::{Gpa, Span, Width};
use trapline_vcpu::Slot;
use trapline_vcpu::bare::{self, Asked, BareError};
use vm_memory::MmapRegion;

use super::cases::{CASES, Case, Reach};
use super::payload;
use super::rig;
use super::script::{self, Pace, Script, Visit};
use super::survey::Survey;

/// Runs the cases of these numbers; an access to what `survey` knows a file of is a `pread` or `pwrite`
/// there if `with_files`, and nothing else is carried out.
///
/// # Errors
/// KVM refuses something, or a case does not come to its end.
pub fn visit(survey: &Survey, with_files: bool, cases: &[usize], pace: Pace) -> Result<Vec<Visit>> {
    let firmware = Arc::new(MmapRegion::new(payload::SIZE)?);
    let entries = rig::write_payload(&firmware, survey, cases)?;
    let stack = Arc::new(MmapRegion::new(0x1_0000)?);
    let slot = |gpa, memory: Arc<MmapRegion>, kind| {
        let span = Span::of_len(Gpa(gpa), memory.size() as u64);
        span.map(|span| Slot { span, memory, offset: 0, kind })
    };
    let rom = slot(payload::ORIGIN.into(), firmware, DirectKind::Rom);
    let slots: Vec<Slot> = rom.into_iter().chain(slot(0, stack, DirectKind::Ram)).collect();
    let script = Arc::new(Mutex::new(Script::new(entries, pace, false)));
    let mut answers = Answers::new(Arc::clone(&script), if with_files { Some(survey) } else { None });
    let limit = rig::limit(pace, cases.len());
    let ended = bare::run(&slots, limit, move |asked| answers.answer(asked));
    let mut script = script.lock();
    match ended {
        Ok(()) => Ok(script.take()),
        Err(BareError::TooLong(limit)) => bail!("{}", rig::stuck(&script, "bare KVM_RUN", limit)),
        Err(error) => Err(error.into()),
    }
}

/// One transfer of a case that is many of the same kind.
pub struct Transfer {
    part: Part,
    address: u64,
    width: Width,
    writes: bool,
}

/// What a case makes of the device's file, if it is but one kind of access and there is a file.
pub fn transfer(case: &Case, survey: &Survey) -> Option<Transfer> {
    const TEXT: u64 = 0xb_8000;
    let (address, width, writes) = match case.name {
        "port-in" => (0x3cc, Width::B1, false),
        "port-out" => (0x3d4, Width::B1, true),
        "window-write-2" => (TEXT, Width::B2, true),
        "window-write-4" => (TEXT, Width::B4, true),
        "window-read-2" => (TEXT, Width::B2, false),
        "window-read-4" => (TEXT, Width::B4, false),
        "bar-read-trapped" => (survey.places.trapped?.into(), Width::B4, false),
        "bar-write-trapped" => (survey.places.trapped_write?.into(), Width::B4, true),
        _ => return None,
    };
    let part = if case.reach == Reach::Vga { Part::vga(survey) } else { Part::bar(survey) };
    Some(Transfer { part: part?, address, width, writes })
}

/// Makes the transfers of the cases of these numbers on this thread.
pub fn transfers(survey: &Survey, cases: &[usize], pace: Pace) -> Vec<Visit> {
    let mut found = Vec::new();
    for number in cases {
        let Some((case, transfer)) =
            CASES.get(*number).and_then(|case| Some((case, transfer(case, survey)?)))
        else {
            continue;
        };
        // The address is for a guest, and there is none.
        let mut script = Script::new([(*number, 0)], pace, false);
        while script.next().is_some() {
            let count = u64::from(script.count()) * u64::from(case.times);
            script.begin();
            (0..count).for_each(|_| transfer.carry_out());
            let end = Instant::now();
            script.end(end, end, None);
        }
        found.extend(script.take());
    }
    found
}

impl Transfer {
    fn carry_out(&self) {
        let mut bytes = [0; 8];
        let (data, _) = bytes.split_at_mut(self.width.bytes());
        match self.writes {
            true => self.part.write(self.address, data),
            false => self.part.read(self.address, data),
        }
    }
}

/// A part of the guest's addresses that is a file.
struct Part {
    first: u64,
    file: FileRegion,
}

impl Part {
    /// Ports and window, whose offsets are the addresses.
    fn vga(survey: &Survey) -> Option<Part> {
        Some(Part { first: 0, file: survey.vga.clone()? })
    }

    fn bar(survey: &Survey) -> Option<Part> {
        Some(Part { first: survey.places.trapped?.into(), file: survey.trapped.clone()? })
    }

    /// Where in the file this address lies.
    fn position(&self, address: u64, len: usize) -> Option<u64> {
        let offset = address.checked_sub(self.first)?;
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= self.file.len);
        if inside { self.file.offset.checked_add(offset) } else { None }
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        if let Some(at) = self.position(address, data.len()) {
            // What fails here fails in the machine that is compared, too, and takes its time.
            let _ = rustix::io::pread(&self.file.fd, data, at);
        }
    }

    fn write(&self, address: u64, data: &[u8]) {
        if let Some(at) = self.position(address, data.len()) {
            let _ = rustix::io::pwrite(&self.file.fd, data, at);
        }
    }
}

/// What the loop answers.
struct Answers {
    script: Arc<Mutex<Script>>,
    vga: Option<Part>,
    bar: Option<Part>,
}

impl Answers {
    fn new(script: Arc<Mutex<Script>>, files: Option<&Survey>) -> Answers {
        Answers { script, vga: files.and_then(Part::vga), bar: files.and_then(Part::bar) }
    }

    fn answer(&mut self, asked: Asked<'_>) -> ControlFlow<()> {
        match asked {
            Asked::PortIn { port: script::NEXT, data } => {
                let next = self.script.lock().next();
                copy(data, next.unwrap_or(0));
                if next.is_none() {
                    return ControlFlow::Break(());
                }
            }
            Asked::PortIn { port: script::COUNT, data } => copy(data, self.script.lock().count()),
            Asked::PortOut { port: script::BEGIN, .. } => self.script.lock().begin(),
            Asked::PortOut { port: script::END, .. } => {
                let end = Instant::now();
                self.script.lock().end(end, end, None);
            }
            Asked::PortIn { port, data } => {
                if let Some(part) = self.vga.as_ref().filter(|_| is_vga(port)) {
                    part.read(port.into(), data);
                }
            }
            Asked::PortOut { port, data } => {
                if let Some(part) = self.vga.as_ref().filter(|_| is_vga(port)) {
                    part.write(port.into(), data);
                }
            }
            Asked::Load { gpa, data } => {
                if let Some(part) = self.part(gpa) {
                    part.read(gpa, data);
                }
            }
            Asked::Store { gpa, data } => {
                if let Some(part) = self.part(gpa) {
                    part.write(gpa, data);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn part(&self, gpa: u64) -> Option<&Part> {
        if gpa <= legacy::WINDOW.1 { self.vga.as_ref() } else { self.bar.as_ref() }
    }
}

fn is_vga(port: u16) -> bool {
    legacy::PORTS.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

fn copy(data: &mut [u8], value: u32) {
    for (place, byte) in data.iter_mut().zip(value.to_le_bytes()) {
        *place = byte;
    }
}
