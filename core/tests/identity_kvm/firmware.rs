//! The real SeaBIOS with functions that keep addresses, in the low window and above 4 GiB.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trapline::events::{Event, Events};
use trapline::firmware::boot::{Boot, Choices};
use trapline::firmware::image;
use trapline::firmware::placement::survey;
use trapline::identity::{Ground, HostAddresses, arrange};
use trapline::machine::{Ending, Machine};
use trapline::parts::{PartId, Parts};
use trapline::platform::{self, KvmGsis, Platform, Wishes};
use trapline_devices::host;
use trapline_devices::pci::{BarKind, ConfigSpace, Devfn, Link, Moves};
use trapline_devices::platform::output::Output;
use trapline_devices::q35::{Pages, Pirqs, Ram, RootPort};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::space::{AddressSpace, ConfigLatch, Resolved};
use trapline_io::{Address, Gpa, Op, Port, Span, Trap, Width};
use trapline_vcpu::Vm;
use trapline_vcpu::cpuid::Cpuid;

use crate::card::{Card, Register};

const MMIO: BarKind = BarKind::Memory32 { prefetchable: false };
const FRAME: BarKind = BarKind::Memory32 { prefetchable: true };
const WIDE: BarKind = BarKind::Memory64 { prefetchable: true };
/// How long the firmware may take: it is a matter of a second where nothing else runs.
const LONGEST: Duration = Duration::from_secs(120);
/// The last words of a firmware that found nothing to boot.
const END: &str = "No bootable device";

/// A function: the device number, or the port above it, its registers, and where they are kept.
struct Function {
    device: u8,
    behind_port: bool,
    registers: &'static [Register],
    kept: &'static [(u8, u64)],
}

/// What the guest was when its firmware was done, some times over.
struct Seen {
    /// The map at each end of the firmware.
    maps: Vec<Arc<AddressSpace>>,
    /// The functions, in the order given.
    ids: Vec<PartId>,
    log: String,
}

/// A machine of `memory` bytes with these functions, started `boots` times. None where it cannot be.
fn boot(memory: u64, functions: &[Function], boots: usize) -> Option<Seen> {
    let (vm, firmware) = match (Vm::new(), image::firmware(None)) {
        (Ok(vm), Ok(firmware)) => (Arc::new(vm), firmware),
        (vm, firmware) => {
            println!("skipped: {:?} {:?}", vm.err(), firmware.err());
            return None;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let (events, published) = (Events::default(), Published::default());
    let kept = functions.iter().flat_map(|function| {
        let size = |index: u8| function.registers.iter().find(|register| register.0 == index).unwrap();
        let memory = function.kept.iter().filter(move |(index, _)| size(*index).1 != BarKind::Io);
        memory.map(move |(index, address)| Span::of_len(Gpa(*address), size(*index).2).unwrap())
    });
    let ram = Ram::around(memory, Pages::Transparent, &kept.collect::<Vec<_>>()).unwrap();
    let pirqs = Pirqs::new(Arc::new(KvmGsis(Arc::clone(&vm))));
    let Platform { mut parts, .. } = platform::build(Wishes {
        vm: Arc::clone(&vm),
        events: events.clone(),
        ram: ram.clone(),
        firmware: firmware.bytes,
        cpus: 1,
        serial: None,
        debug_console: Some(Output::descriptor(File::create(&log).unwrap().into())),
        pirqs,
    })
    .unwrap();
    let ids: Vec<PartId> = functions.iter().map(|function| add(&mut parts, function)).collect();
    let phys_bits = Cpuid::of_host(&vm, 1).unwrap().phys_bits();
    if functions.iter().any(|function| !function.kept.is_empty()) {
        let (found, places) = survey(&mut parts);
        let ground = Ground { ram: ram.split(), phys_bits, reserved: &[] };
        let told: Arc<dyn host::Events> = Arc::new(events.clone());
        arrange(&mut parts, (&found, &places), ground, &told).unwrap();
    }
    let now = published.clone();
    let boot = Boot {
        cpus: 1,
        ram: ram.split(),
        reserved: Vec::new(),
        uuid: [0; 16],
        keyboard: true,
        serial: false,
        order: Vec::new(),
        choices: Choices::default(),
        linux: None,
        windows: Box::new(move || platform::windows(&now, None)),
    };
    parts.push(platform::fw_cfg(boot.into_items().unwrap(), &ram));
    let service = Service::Adaptive;
    let mut machine = Machine::new(vm, 1, service, published.clone(), parts, events.clone()).unwrap();
    let maps = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&log, boots, &published, &events));
        let ending = machine.run(Instant::now().checked_add(2 * LONGEST));
        let maps = watch.join().unwrap();
        assert_eq!(ending.unwrap(), Ending::Left);
        maps
    });
    machine.stop();
    Some(Seen { maps, ids, log: std::fs::read_to_string(&log).unwrap() })
}

fn add(parts: &mut Vec<Parts>, function: &Function) -> PartId {
    let device = Devfn::new(function.device, 0).unwrap();
    let parent = function.behind_port.then(|| {
        let port = RootPort::new(Link { speed: 4, lanes: 16 });
        parts.push(Parts::function("port", port, None, device, RootPort::TOPOLOGY));
        parts.len() - 1
    });
    let name = format!("card {}", function.device);
    let keeps = HostAddresses { name: name.clone(), bars: function.kept.to_vec(), moves: Moves::Stop };
    let at = if function.behind_port { Devfn::default() } else { device };
    let part = Parts::function(name, Card::new(function.registers), parent, at, ConfigSpace::TOPOLOGY);
    parts.push(Parts { keeps: (!function.kept.is_empty()).then_some(keeps), ..part });
    parts.len() - 1
}

/// Waits for the firmware's end `boots` times, with a reset between, and looks at the map each time.
fn watch(log: &Path, boots: usize, published: &Published, events: &Events) -> Vec<Arc<AddressSpace>> {
    let deadline = Instant::now() + LONGEST;
    let mut maps = Vec::new();
    while maps.len() < boots && Instant::now() < deadline {
        if std::fs::read_to_string(log).unwrap_or_default().matches(END).count() > maps.len() {
            maps.push(published.current());
            if maps.len() < boots {
                events.push(Event::Guest(host::Event::Reset));
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    events.push(Event::Leave);
    maps
}

/// Who answers there, and by which region.
fn who(map: &AddressSpace, at: Address) -> Option<(PartId, u8)> {
    match map.resolve(Trap { at, width: Width::B1, op: Op::Read }, &ConfigLatch::default()) {
        Resolved::Access { endpoint, access, .. } => Some((endpoint.0.into(), access.region.0)),
        _ => None,
    }
}

/// All that is kept, and nothing else, is where it is to be, after each boot.
fn check(functions: &[Function], seen: &Seen, boots: usize) {
    assert_eq!(seen.maps.len(), boots, "{}", seen.log);
    for map in &seen.maps {
        for (function, id) in functions.iter().zip(&seen.ids) {
            for (index, address) in function.kept {
                let (_, kind, size) =
                    function.registers.iter().find(|register| register.0 == *index).unwrap();
                for at in [*address, address + size / 2, address + size - 1] {
                    let at = match kind {
                        BarKind::Io => Address::Port(Port(u16::try_from(at).unwrap())),
                        _ => Address::Gpa(Gpa(at)),
                    };
                    assert_eq!(who(map, at), Some((*id, *index)), "{at:?}\n{}", seen.log);
                }
            }
            // What is not kept has a place of its own all the same: as much of it as there is.
            for (index, kind, size) in function.registers.iter().filter(|register| register.1 != BarKind::Rom)
            {
                let is = |at: Address| who(map, at) == Some((*id, *index));
                let found: u64 = match kind {
                    BarKind::Io => (0..=0xffff).filter(|port| is(Address::Port(Port(*port)))).count() as u64,
                    _ => {
                        let spans = map.memory().map(|(span, _)| span);
                        let ours = spans.filter(|span| is(Address::Gpa(span.first())));
                        ours.map(|span| span.extent() + 1).sum()
                    }
                };
                assert_eq!(found, *size, "BAR {index} of {}\n{}", function.device, seen.log);
            }
        }
    }
}

/// What lies exactly where SeaBIOS puts the first of what it finds.
const TOP: u64 = 0xfebf_f000;

#[test]
fn what_is_kept_in_the_low_window_stays_and_all_else_goes_around_it() {
    let functions = [
        Function { device: 1, behind_port: false, registers: &[(0, MMIO, 4096)], kept: &[(0, TOP)] },
        Function {
            device: 2,
            behind_port: false,
            registers: &[(0, BarKind::Io, 32), (1, MMIO, 4096)],
            kept: &[],
        },
        Function {
            device: 3,
            behind_port: true,
            registers: &[
                (0, FRAME, 16 << 20),
                (2, MMIO, 4096),
                (4, BarKind::Io, 128),
                (6, BarKind::Rom, 65536),
            ],
            kept: &[(0, 0xfd00_0000), (2, 0xfe80_1000), (4, 0xc000)],
        },
        Function { device: 4, behind_port: true, registers: &[(0, WIDE, 64 << 20)], kept: &[] },
        // More than the firmware has room for: it must not even learn of these.
        Function {
            device: 5,
            behind_port: false,
            registers: &[(0, MMIO, 512 << 20)],
            kept: &[(0, 0x8000_0000)],
        },
        Function {
            device: 6,
            behind_port: false,
            registers: &[(0, FRAME, 512 << 20)],
            kept: &[(0, 0xc000_0000)],
        },
    ];
    // The host's addresses are in nobody's way, and each boot finds them anew.
    let Some(seen) = boot(64 << 20, &functions, 2) else { return };
    check(&functions, &seen, 2);
}

#[test]
fn what_is_kept_above_4_gib_lies_in_a_gap_of_ram() {
    let functions = [
        Function {
            device: 1,
            behind_port: true,
            registers: &[(0, WIDE, 256 << 20)],
            kept: &[(0, 0x1_4000_0000)],
        },
        Function {
            device: 2,
            behind_port: false,
            registers: &[(0, WIDE, 1 << 30)],
            kept: &[(0, 0x4_0000_0000)],
        },
        Function { device: 3, behind_port: false, registers: &[(0, WIDE, 4 << 30)], kept: &[] },
        Function {
            device: 4,
            behind_port: false,
            registers: &[(0, FRAME, 1 << 20)],
            kept: &[(0, 0x7000_0000)],
        },
    ];
    let Some(seen) = boot(6 << 30, &functions, 1) else { return };
    check(&functions, &seen, 1);
    let ram = |at: u64| who(&seen.maps[0], Address::Gpa(Gpa(at))).is_some_and(|(id, _)| id == 0);
    // Low RAM ends before what is kept there, and the gap is one of whole GiB.
    assert!(ram(0x6fff_f000) && !ram(0x7000_0000) && !ram(0x7fff_f000), "{}", seen.log);
    assert!(ram(0x1_3fff_f000) && !ram(0x1_5000_0000) && ram(0x1_8000_0000), "{}", seen.log);
}

#[test]
fn without_it_the_firmware_puts_something_else_there() {
    let functions = [Function { device: 2, behind_port: false, registers: &[(0, MMIO, 4096)], kept: &[] }];
    let Some(seen) = boot(64 << 20, &functions, 1) else { return };
    assert_eq!(who(&seen.maps[0], Address::Gpa(Gpa(TOP))), Some((seen.ids[0], 0)), "{}", seen.log);
}
