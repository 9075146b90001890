//! A machine with a real firmware: what it was said to do, and what it did.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trapline::events::{Event, Events};
use trapline::firmware::acpi::Windows;
use trapline::firmware::boot::{Boot, Choices};
use trapline::firmware::image;
use trapline::firmware::placement::{self, Guest, Misfit, Vendor, Version};
use trapline::parts::Parts;
use trapline::platform::{self, KvmGsis, Wishes};
use trapline_devices::pci::BarKind;
use trapline_devices::platform::output::Output;
use trapline_devices::q35::{HIGH_RAM, Pirqs, Ram};
use trapline_io::device::Range;
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::{Device, Gpa, Region, Span, Width};
use trapline_vcpu::Vm;
use trapline_vcpu::cpuid::Cpuid;

use crate::model::{self, Shape};

/// What the firmware says right after it has placed everything.
const DONE: &str = "cpu(s) max supported";
/// What it says when it stops.
const STOPPED: &str = "out of ";
/// It takes a second where nothing else runs.
const LONGEST: Duration = Duration::from_secs(120);

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Machine {
    pub memory: u64,
    pub phys_bits: u8,
    pub reserved: Vec<Span<Gpa>>,
    pub shapes: Vec<Shape>,
}

/// A register, by its function's name and its index, 6 being the ROM: its first address and size.
pub type Places = BTreeMap<(String, u8), (u64, u64)>;

/// What the firmware did.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// It placed everything.
    Placed(Places),
    /// It found that it cannot.
    Stopped,
}

/// A firmware.
pub struct Image {
    pub version: Version,
    bytes: Vec<u8>,
}

pub fn span(first: u64, len: u64) -> Span<Gpa> {
    Span::of_len(Gpa(first), len).unwrap()
}

/// All that are found, one of each version.
pub fn images() -> Vec<Image> {
    let named = std::env::var("TRAPLINE_SEABIOS").unwrap_or_default();
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/lab/outer/usr/share/seabios/bios-256k.bin");
    let others = named.split(':').chain([lab]).map(Path::new).filter(|path| path.exists());
    let read = |path: Option<&Path>| image::firmware(path).map(|image| image.bytes);
    let found = std::iter::once(read(None)).chain(others.map(|path| read(Some(path))));
    let mut images: Vec<Image> = Vec::new();
    for bytes in found.flatten() {
        let version = Version::of_image(&bytes).expect("an image tells its version");
        if images.iter().all(|image| image.version != version) {
            images.push(Image { version, bytes });
        }
    }
    if images.is_empty() {
        println!("skipped: the package seabios is not installed");
    }
    images
}

/// Whether a register lies where none can be.
pub fn is_bad(machine: &Machine, seen: &Places) -> bool {
    let end = 1_u128 << machine.phys_bits;
    let ram_end = HIGH_RAM + machine.memory.saturating_sub(2 << 30);
    seen.iter().any(|(name, (at, size))| {
        let (first, last) = (u128::from(*at), u128::from(*at) + u128::from(*size));
        let hits = |span: &Span<Gpa>| first <= u128::from(span.last().0) && u128::from(span.first().0) < last;
        // A register that cannot hold its address lies on what another has.
        let others = seen.iter().filter(|(other, _)| *other != name);
        let below = others.filter(|(_, (other, _))| at <= other && other - at < *size).count();
        last > end || below > 0 || machine.reserved.iter().any(hits) || (*at >= HIGH_RAM && *at < ram_end)
    })
}

/// What the debug port gets.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn says(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock()).contains(text)
    }
}

/// Plans a machine, and lets a firmware place it; `None` without KVM.
pub fn run(image: &Image, machine: &Machine) -> Option<(Result<Places, Misfit>, Seen)> {
    let vm = match Vm::new() {
        Ok(vm) => Arc::new(vm),
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let (events, log) = (Events::default(), Log::default());
    let ram = Ram::new(machine.memory).unwrap();
    let wishes = Wishes {
        vm: Arc::clone(&vm),
        events: events.clone(),
        ram: ram.clone(),
        firmware: image.bytes.clone(),
        cpus: 1,
        serial: None,
        debug_console: Some(Output::new(Box::new(log.clone()))),
        pirqs: Pirqs::new(Arc::new(KvmGsis(Arc::clone(&vm)))),
    };
    let mut parts = platform::build(wishes).unwrap().parts;
    model::parts(&machine.shapes, &mut parts);
    let (functions, at) = placement::survey(&mut parts);
    let guest = Guest {
        functions: &functions,
        ram: ram.split(),
        phys_bits: machine.phys_bits,
        vendor: Vendor::of(Cpuid::of_host(&vm, 1).unwrap().vendor()),
        reserved: &machine.reserved,
        floor: 0,
    };
    let plan = placement::place(image.version, &guest);
    let high = plan.as_ref().map(|plan| plan.high).map_err(Misfit::clone);
    let planned = plan.map(|plan| {
        let name = |id: usize| functions[id].name.clone();
        plan.bars.iter().map(|bar| ((name(bar.function), bar.bar), extent(bar.at))).collect()
    });
    vm.set_phys_bits(machine.phys_bits);
    parts.push(platform::fw_cfg(boot(machine, &ram), &ram));
    let names: Vec<_> = at.iter().zip(&functions).map(|(part, function)| (*part, function.clone())).collect();
    let published = Published::default();
    let seen = carry_out(vm, events, parts, &published, &log, &names);
    // What ACPI tells of: neither less than the firmware took, nor more.
    if let (Seen::Placed(_), Ok(high)) = (&seen, high) {
        assert_eq!(platform::windows(&published, high).high, high, "{machine:?}");
        assert_eq!(platform::windows(&published, None).high.is_some(), high.is_some(), "{machine:?}");
    }
    Some((planned, seen))
}

fn boot(machine: &Machine, ram: &Ram) -> trapline_devices::platform::fw_cfg::Items {
    let boot = Boot {
        cpus: 1,
        ram: ram.split(),
        reserved: machine.reserved.clone(),
        uuid: [0; 16],
        keyboard: false,
        serial: false,
        order: Vec::new(),
        choices: Choices::default(),
        linux: None,
        windows: Box::new(Windows::default),
    };
    boot.into_items().unwrap()
}

/// Lets the firmware run to its end, and reads all registers.
fn carry_out(
    vm: Arc<Vm>,
    events: Events,
    parts: Vec<Parts>,
    published: &Published,
    log: &Log,
    functions: &[(usize, placement::Function)],
) -> Seen {
    let published = published.clone();
    let mut machine =
        trapline::machine::Machine::new(vm, 1, Service::Adaptive, published, parts, events.clone()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let since = Instant::now();
            while !log.says(DONE) && !log.says(STOPPED) && since.elapsed() < LONGEST {
                std::thread::sleep(Duration::from_millis(5));
            }
            events.push(Event::Leave);
        });
        machine.run(Instant::now().checked_add(2 * LONGEST)).unwrap();
    });
    let seen = if log.says(DONE) {
        Seen::Placed(read(&machine, functions))
    } else {
        assert!(log.says(STOPPED), "the firmware did not come to its end: {:?}", log.0.lock());
        Seen::Stopped
    };
    machine.stop();
    seen
}

/// What the firmware has left in the registers.
fn read(machine: &trapline::machine::Machine, functions: &[(usize, placement::Function)]) -> Places {
    let mut places = Places::new();
    for (part, function) in functions {
        for (index, bar) in (0_u8..).zip(function.bars).filter_map(|(index, bar)| Some((index, bar?))) {
            let offset = if index == 6 { 0x30 } else { 0x10 + 4 * u64::from(index) };
            let dword = |offset| {
                let read = |device: &mut dyn Device| device.read(Region::CONFIG, offset, Width::B4);
                machine.endpoints()[*part].with_device(read).unwrap()
            };
            let address = match bar.kind {
                BarKind::Io => dword(offset) & 0xffff_fffc,
                BarKind::Memory32 { .. } => dword(offset) & 0xffff_fff0,
                BarKind::Memory64 { .. } => dword(offset + 4) << 32 | dword(offset) & 0xffff_fff0,
                BarKind::Rom => dword(offset) & 0xffff_f800,
            };
            let size = if bar.kind == BarKind::Io { bar.size } else { bar.size.max(4096) };
            places.insert((function.name.clone(), index), (address, size));
        }
    }
    places
}

fn extent(range: Range) -> (u64, u64) {
    match range {
        Range::Ports(span) => (span.first().0.into(), span.extent() + 1),
        Range::Memory(span) => (span.first().0, span.extent() + 1),
    }
}
