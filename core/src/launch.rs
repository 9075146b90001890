//! From a configuration to a running machine, and to its end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use trapline_devices::assigned::{self, Function, RomSource};
use trapline_devices::host;
use trapline_devices::pci::{Devfn, Pin};
use trapline_devices::platform::keyboard::{self, KeyCode, Keys};
use trapline_devices::platform::uart::Input;
use trapline_devices::q35::{Pirqs, Ram};
use trapline_devices::vfio_user::client::{Client, Settings};
use trapline_devices::vga;
use trapline_devices::virtio::block::{Block, Disk};
use trapline_io::Region;
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_vcpu::Vm;
use vm_memory::GuestMemoryMmap;

use crate::adapter::{self, Display};
use crate::command::run::{End, Ends, Guest};
use crate::config::{Adapters, AssignedDevice, Io, Rom, RunConfig, Serial, Vga};
use crate::events::{Event, Events};
use crate::firmware::boot::{Boot, Choices, Target};
use crate::firmware::e820::RamSplit;
use crate::firmware::{image, linux};
use crate::machine::{Ending, Machine};
use crate::parts::{Parts, ServedBy};
use crate::platform::{self, KvmGsis, Platform, Wishes};
use crate::screen::{Frame, Key, Press, Source, TextScreen};

/// A machine that runs, and the thread that watches over it.
struct Running {
    events: Events,
    thread: JoinHandle<()>,
    keys: Keys,
    display: Box<dyn Source>,
    /// Dropped last: it ends when the machine has closed its connection.
    _adapter: Option<adapter::Process>,
}

/// Builds the machine that `config` describes and lets it run; `ends` is told when it ends by
/// itself.
///
/// # Errors
/// What is missing or refused, for a person.
pub fn launch(config: &RunConfig, ends: Ends) -> Result<Box<dyn Guest>> {
    let firmware = image::firmware(config.firmware.as_deref())?;
    let vm = Arc::new(Vm::new()?);
    let events = Events::default();
    let published = Published::default();
    let ram = Ram::new(config.memory)?;
    let pirqs = Pirqs::new(Arc::new(KvmGsis(Arc::clone(&vm))));
    let items = boot(config, &published)?.into_items();
    let given = adapters(&config.adapters, &events)?;
    let Platform { mut parts, keys, serial } = platform::build(Wishes {
        vm: Arc::clone(&vm),
        events: events.clone(),
        ram: ram.clone(),
        firmware: firmware.bytes,
        items,
        cpus: config.cpus,
        serial: serial_output(&config.serial)?,
        debug_console: config.debugcon.as_deref().map(create).transpose()?,
        pirqs: pirqs.clone(),
    })?;
    parts.extend(given.parts);
    parts.extend(disks(config, ram.guest_memory(), &pirqs)?);
    let service = match config.io {
        Io::Inline => Service::Inline,
        Io::Uring => Service::Uring,
        Io::Adaptive => Service::Adaptive,
    };
    let machine = Machine::new(vm, config.cpus.into(), service, published, parts, events.clone())?;
    if let (Serial::Stdio, Some(input)) = (&config.serial, serial) {
        feed(input)?;
    }
    let thread = std::thread::Builder::new()
        .name("machine".into())
        .spawn(move || watch_over(machine, &ends))
        .context("cannot start the machine's thread")?;
    Ok(Box::new(Running { events, thread, keys, display: given.display, _adapter: given.process }))
}

/// Runs the machine to its end, tells of it, and takes it apart.
fn watch_over(mut machine: Machine, ends: &Ends) {
    let end = match machine.run(None) {
        Ok(Ending::PowerOff) => End::PowerOff,
        Ok(Ending::Left) => End::Left,
        Ok(Ending::TimedOut) => End::Timeout,
        Err(error) => End::Failed(error.to_string()),
    };
    ends.report(end);
    machine.stop();
}

impl Guest for Running {
    fn press(&mut self, press: Press) {
        self.keys.press(key(press));
    }

    fn screen(&mut self) -> &mut dyn Source {
        &mut *self.display
    }

    fn stop(self: Box<Self>) -> Result<()> {
        self.events.push(Event::Leave);
        self.thread.join().map_err(|_| anyhow!("the machine's thread panicked; this is a bug in trapline"))
    }
}

/// The display adapters of a machine.
struct Given {
    parts: Vec<Parts>,
    /// What the owner of legacy VGA shows, if it tells.
    display: Box<dyn Source>,
    process: Option<adapter::Process>,
}

/// Device numbers on bus 0 from which adapters are placed.
const FIRST_ADAPTER: u8 = 1;

/// Connects to the adapters, or starts ours.
fn adapters(wanted: &Adapters, events: &Events) -> Result<Given> {
    let mut given = Given { parts: Vec::new(), display: Box::new(NoDisplay), process: None };
    let settings = |name: String| {
        let events: Arc<dyn host::Events> = Arc::new(events.clone());
        Settings { name, events: Some(events), ..Settings::default() }
    };
    match wanted {
        Adapters::None => {}
        Adapters::Software => {
            let (process, socket) = adapter::Process::start()?;
            given.process = Some(process);
            let client = Client::over(socket, settings("software adapter".into()))?;
            add(&mut given, Function::open(client, assigned::Options::default())?)?;
        }
        Adapters::Given(devices) => {
            let mut owner = devices.iter().any(|device| device.vga == Vga::On);
            for device in devices {
                let client = Client::connect(&device.socket, settings(device.socket.display().to_string()))?;
                let function = Function::open(client, options(device, owner))?;
                owner |= function.has_vga();
                add(&mut given, function)?;
            }
        }
    }
    Ok(given)
}

/// How a device is given to the guest; `owned` says that another has legacy VGA.
fn options(device: &AssignedDevice, owned: bool) -> assigned::Options {
    assigned::Options {
        vga: match device.vga {
            Vga::On => assigned::Vga::On,
            Vga::Auto if !owned => assigned::Vga::Auto,
            Vga::Off | Vga::Auto => assigned::Vga::Off,
        },
        rom: match &device.rom {
            Rom::Device => RomSource::Device,
            Rom::File(path) => RomSource::File(path.clone()),
            Rom::Off => RomSource::Off,
        },
    }
}

/// Puts a function at the next place on bus 0.
fn add(given: &mut Given, function: Function<Client>) -> Result<()> {
    let index = given.parts.len();
    let place = u8::try_from(index).ok().and_then(|index| Devfn::new(FIRST_ADAPTER + index, 0));
    let devfn = place.filter(|devfn| devfn.device() < FIRST_DISK).context("too many --device for bus 0")?;
    if function.has_vga()
        && let (Some(framebuffer), Some(registers)) =
            (function.mapping(Region::bar(0)), function.mapping(vga::SCREEN))
    {
        given.display = Box::new(Display { registers, framebuffer });
    }
    let (topology, attention) = (function.topology(), function.attention().context("out of descriptors")?);
    let part = Parts::function(format!("adapter{index}"), function, None, devfn, topology);
    given.parts.push(Parts { served_by: ServedBy::Own, attention, ..part });
    Ok(())
}

/// Device numbers on bus 0 from which disks are placed.
const FIRST_DISK: u8 = 8;
/// Device number of the LPC bridge.
const LPC: u8 = 31;

/// The disks, each at its place on bus 0, in order.
fn disks(config: &RunConfig, memory: &Arc<GuestMemoryMmap>, pirqs: &Pirqs) -> Result<Vec<Parts>> {
    let mut parts = Vec::new();
    for (index, wanted) in config.disks.iter().enumerate() {
        let disk = Disk::open(&wanted.path, wanted.readonly).context("--disk")?;
        let device = disk_slot(index).context("too many --disk for bus 0")?;
        let devfn = Devfn::new(device, 0).context("too many --disk for bus 0")?;
        let irq = Arc::from(pirqs.line(device, Pin::A));
        let (block, task) = Block::new(disk, Arc::clone(memory), irq);
        let topology = block.topology();
        parts.push(Parts::function(format!("disk{index}"), block, None, devfn, topology).task(task));
    }
    Ok(parts)
}

/// The device number of the disk with this index.
fn disk_slot(index: usize) -> Option<u8> {
    u8::try_from(index).ok()?.checked_add(FIRST_DISK).filter(|device| *device < LPC)
}

/// What the firmware is told.
fn boot(config: &RunConfig, published: &Published) -> Result<Boot> {
    let ram = RamSplit::of(config.memory);
    let mut order = Vec::new();
    let mut linux = None;
    if let Some(wanted) = &config.linux {
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let initrd = wanted.initrd.as_deref().map(read).transpose()?;
        let kernel = linux::Linux::new(&read(&wanted.kernel)?, initrd.as_deref(), &wanted.append, ram)
            .with_context(|| wanted.kernel.display().to_string())?;
        linux = Some((kernel, image::linuxboot()?));
        order.push(Target::Kernel);
    }
    order.extend((0..config.disks.len()).filter_map(disk_slot).map(Target::disk));
    let published = published.clone();
    Ok(Boot {
        cpus: config.cpus,
        ram,
        uuid: [0; 16],
        keyboard: true,
        serial: config.serial != Serial::None,
        order,
        choices: Choices::default(),
        linux,
        windows: Box::new(move || platform::windows(&published)),
    })
}

/// Where the serial line's output goes; no line for [`Serial::None`].
fn serial_output(serial: &Serial) -> Result<Option<Box<dyn Write + Send>>> {
    Ok(match serial {
        Serial::Stdio => Some(Box::new(io::stdout())),
        Serial::File(path) => Some(Box::new(create(path)?)),
        Serial::None => None,
    })
}

fn create(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// Takes standard input to the serial line until it ends. The thread ends with the process: a read
/// from a terminal can not be called back.
fn feed(input: Input) -> Result<()> {
    std::thread::Builder::new()
        .name("serial-input".into())
        .spawn(move || {
            let mut bytes = [0; 256];
            while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
                let mut rest = &bytes[..count];
                while !rest.is_empty() {
                    let taken = input.send(rest);
                    rest = &rest[taken..];
                    if taken == 0 {
                        std::thread::sleep(std::time::Duration::from_millis(10));
                    }
                }
            }
        })
        .context("cannot start the thread that reads the serial line's input")?;
    Ok(())
}

/// A key press as the keyboard knows it.
fn key(press: Press) -> keyboard::Key {
    let code = match press.key {
        Key::Char(character) => KeyCode::Char(character),
        Key::Enter => KeyCode::Enter,
        Key::Esc => KeyCode::Escape,
        Key::Backspace => KeyCode::Backspace,
        Key::Tab => KeyCode::Tab,
        Key::Up => KeyCode::Up,
        Key::Down => KeyCode::Down,
        Key::Left => KeyCode::Left,
        Key::Right => KeyCode::Right,
        Key::Home => KeyCode::Home,
        Key::End => KeyCode::End,
        Key::PageUp => KeyCode::PageUp,
        Key::PageDown => KeyCode::PageDown,
        Key::Insert => KeyCode::Insert,
        Key::Delete => KeyCode::Delete,
        Key::F(number) => KeyCode::Function(number),
    };
    let held = press.modifiers;
    keyboard::Key { code, shift: held.shift, ctrl: held.ctrl, alt: held.alt }
}

/// The screen of a machine without an adapter.
struct NoDisplay;

impl Source for NoDisplay {
    fn text(&mut self) -> Option<TextScreen> {
        None
    }
    fn frame(&mut self) -> Option<Frame> {
        None
    }
}
