//! A served device given to a guest: from the guest's address to the device and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::SealFlags;
use trapline_devices::assigned::RomSource;
use trapline_devices::assigned::function::{Error, Function, Options, Vga};
use trapline_devices::vfio_user::Client;
use trapline_devices::vfio_user::client::Settings;
use trapline_devices::vfio_user::server::{Memory, RegionDescription};
use trapline_io::completion::Caller;
use trapline_io::completion::Completions;
use trapline_io::device::{Claim, DirectKind, Range, Target};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::Endpoint;
use trapline_io::path::{Path, Topology};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{ConfigAddress, ConfigLatch, EndpointId, SpaceBuilder};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Port, Region, Span, Trap, Width};

#[path = "vfio_user_toy/device.rs"]
mod toy;
use toy::{Reports, Served, Toy, description, memfd, rom, sealed};

fn open(served: &Served, options: Options) -> Function<Client> {
    Function::open(Client::connect(&served.path, Settings::default()).unwrap(), options).unwrap()
}

fn write(function: &mut Function<Client>, offset: u64, width: Width, value: u64) {
    function.write(Region::CONFIG, offset, width, value).unwrap();
}

fn place_bars(function: &mut Function<Client>) {
    write(function, 0x10, Width::B4, 0xe000_0000);
    write(function, 0x18, Width::B4, 0xe100_0000);
    write(function, 0x30, Width::B4, 0xe200_0001);
    write(function, 0x04, Width::B2, 3);
}

fn memory(first: u64, len: u64) -> Range {
    Range::Memory(Span::of_len(Gpa(first), len).unwrap())
}

fn ports(first: u16, last: u16) -> Range {
    Range::Ports(Span::new(Port(first), Port(last)).unwrap())
}

fn find(claims: &[Claim], range: Range) -> Option<&Claim> {
    claims.iter().find(|claim| claim.range == range)
}

#[test]
fn nothing_decodes_until_command_says_so() {
    let served = Served::new();
    let mut function = open(&served, Options::default());
    assert!(function.claims().ranges.is_empty());
    write(&mut function, 0x04, Width::B2, 2);
    let claims = function.claims().ranges;
    assert_eq!(claims.len(), 1, "BARs hold no address yet: {claims:?}");
    assert!(find(&claims, memory(0xa_0000, 0x2_0000)).is_some());
    write(&mut function, 0x04, Width::B2, 1);
    let claims = function.claims().ranges;
    assert!(find(&claims, memory(0xa_0000, 0x2_0000)).is_none());
    for range in [ports(0x3b0, 0x3bb), ports(0x3c0, 0x3df), ports(0x1ce, 0x1d0)] {
        assert!(find(&claims, range).is_some(), "{range:?}");
    }
}

#[test]
fn bars_are_direct_where_they_are_mapped() {
    let served = Served::new();
    let mut function = open(&served, Options::default());
    place_bars(&mut function);
    let claims = function.claims().ranges;
    let frame_buffer = find(&claims, memory(0xe000_0000, toy::FRAME_BUFFER)).unwrap();
    let direct = frame_buffer.direct.as_ref().unwrap();
    assert_eq!((direct.kind, direct.offset), (DirectKind::Bar, 0));
    assert!(Arc::ptr_eq(&direct.memory, &function.mapping(Region::bar(0)).unwrap()));
    let registers = find(&claims, memory(0xe100_0000, 4096)).unwrap();
    assert!(registers.direct.is_none());
    assert!(matches!(registers.target, Target::Region { region: Region(2), offset: 0, .. }));
    let image = find(&claims, memory(0xe200_0000, 8192)).unwrap();
    assert_eq!(image.direct.as_ref().unwrap().kind, DirectKind::Rom);
    assert!(function.mapping(Region::bar(2)).is_none());
}

#[test]
fn the_rom_is_the_devices_filled_up_with_ones() {
    let served = Served::new();
    let mut function = open(&served, Options::default());
    let first = rom()[..4].try_into().map(u32::from_le_bytes).unwrap();
    assert_eq!(function.read(Region::ROM, 0, Width::B4), Ok(first.into()));
    assert_eq!(function.read(Region::ROM, 4999, Width::B2), Ok(0xff90));
    assert_eq!(function.read(Region::ROM, 8192, Width::B1), Err(Fault::NoRegister));
    assert_eq!(function.write(Region::ROM, 0, Width::B1, 0), Err(Fault::NoRegister));
}

#[test]
fn the_rom_may_be_a_file_or_none() {
    let served = Served::new();
    let function = open(&served, Options { rom: RomSource::Off, ..Options::default() });
    drop(function);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vga.rom");
    std::fs::write(&path, [0x55, 0xaa, 1, 0xc3]).unwrap();
    let mut function = open(&served, Options { rom: RomSource::File(path.clone()), ..Options::default() });
    assert_eq!(function.read(Region::ROM, 0, Width::B4), Ok(0xc301_aa55));
    drop(function);
    std::fs::write(&path, "text").unwrap();
    for source in [RomSource::File(path), RomSource::File(directory.path().join("none"))] {
        let client = Client::connect(&served.path, Settings::default()).unwrap();
        let opened = Function::open(client, Options { rom: source, ..Options::default() });
        assert!(matches!(opened, Err(Error::RomImage { .. } | Error::RomFile { .. })), "{opened:?}");
    }
}

#[test]
fn command_is_shadowed_and_forwarded_without_bus_mastering() {
    let mut served = Served::new();
    let mut function = open(&served, Options::default());
    served.seen();
    write(&mut function, 0x04, Width::B2, 7);
    assert_eq!(served.writes(7), [(4, 3)]);
    assert_eq!(function.read(Region::CONFIG, 4, Width::B2), Ok(7));
    function.allow_dma();
    assert_eq!(served.writes(7), [(4, 7)]);
    write(&mut function, 0x10, Width::B4, 0xe000_0000);
    assert_eq!(served.writes(7), [], "BARs are the guest's business alone");
    write(&mut function, 0x40, Width::B1, 0x5a);
    assert_eq!(function.read(Region::CONFIG, 0x40, Width::B1), Ok(0x5a));
    drop(function);
    assert_eq!(served.end().unwrap().config[0x40], 0x5a);
}

#[test]
fn vga_only_where_it_is_wanted_and_forwarded() {
    let served = Served::new();
    let mut owner = open(&served, Options::default());
    assert!(owner.has_vga());
    assert_eq!(owner.read(Region::CONFIG, 0x0a, Width::B2), Ok(0x0300));
    drop(owner);
    // A BIOS would take the first VGA of the bus for its own.
    let mut other = open(&served, Options { vga: Vga::Off, ..Options::default() });
    assert!(!other.has_vga());
    assert_eq!(other.read(Region::CONFIG, 0x0a, Width::B2), Ok(0x0380));
    drop(other);

    let mut without = description(sealed());
    without.regions[8].size = 0;
    let served = Served::with(without);
    assert!(!open(&served, Options::default()).has_vga());
    let client = Client::connect(&served.path, Settings::default()).unwrap();
    let opened = Function::open(client, Options { vga: Vga::On, ..Options::default() });
    assert!(matches!(opened, Err(Error::NoVga { .. })));

    let mut other_class = Toy::new();
    other_class.config[0x0a] = 0x80;
    let served = Served::of(description(sealed()), other_class);
    assert!(!open(&served, Options::default()).has_vga());
    assert!(open(&served, Options { vga: Vga::On, ..Options::default() }).has_vga());
}

#[test]
fn dispi_ports_lead_into_bar_2() {
    let served = Served::new();
    let mut function = open(&served, Options::default());
    served.seen();
    let dispi = find(
        &{
            write(&mut function, 4, Width::B2, 1);
            function.claims().ranges
        },
        ports(0x1ce, 0x1d0),
    )
    .map(|claim| claim.target);
    let Some(Target::Region { region, offset: 0x1ce, .. }) = dispi else { panic!("{dispi:?}") };
    served.seen();
    function.write(region, 0x1ce, Width::B2, 4).unwrap();
    function.write(region, 0x1cf, Width::B2, 0x41).unwrap();
    assert_eq!(function.read(region, 0x1ce, Width::B2), Ok(4));
    assert_eq!(function.read(region, 0x1cf, Width::B2), Ok(0x41));
    let bar = Region(2);
    assert_eq!(
        served.seen(),
        [Access::write(bar, 0x508, Width::B2, 0x41), Access::read(bar, 0x508, Width::B2)]
    );
    function.write(region, 0x1ce, Width::B2, 0xffff).unwrap();
    assert_eq!(function.read(region, 0x1cf, Width::B2), Err(Fault::NoRegister));
    assert_eq!(function.read(region, 0x1ce, Width::B1), Err(Fault::BadWidth));
    function.reset();
    assert_eq!(function.read(region, 0x1ce, Width::B2), Ok(0));
}

#[test]
fn a_reset_leaves_nothing_decoded() {
    let mut served = Served::new();
    let mut function = open(&served, Options::default());
    place_bars(&mut function);
    served.seen();
    function.reset();
    assert!(function.claims().ranges.is_empty());
    assert_eq!(function.read(Region::CONFIG, 0x10, Width::B4), Ok(8));
    assert_eq!(served.writes(7), [(4, 0)]);
    drop(function);
    assert_eq!(served.end().unwrap().resets, 2, "once when opened");
}

/// No write of these tests changes the map while it runs.
struct Fixed;

impl Topology for Fixed {
    fn change(&self, _: &mut Caller, _: EndpointId, _: Access) {
        panic!("a change of the map")
    }
}

fn guest(mut function: Function<Client>) -> (Path, Arc<Endpoint>) {
    place_bars(&mut function);
    let completions = Completions::new(1);
    let mut space = SpaceBuilder::default();
    for claim in &function.claims().ranges {
        space.claim(EndpointId(0), claim);
    }
    space.function(ConfigAddress(0x10), EndpointId(0), function.topology());
    let bell = Arc::new(Doorbell::new().unwrap());
    let endpoint = Arc::new(Endpoint::new("toy", Box::new(function), completions.clone(), bell));
    let published = Published::new(space.build());
    let path = Path::new(
        published.reader(),
        Arc::new(ConfigLatch::default()),
        Arc::new([Arc::clone(&endpoint)]),
        Arc::new(Fixed),
        completions.caller(CallerId(0)).unwrap(),
    );
    (path, endpoint)
}

fn port(port: u16, width: Width, op: Op) -> Trap {
    Trap { at: Address::Port(Port(port)), width, op }
}

fn gpa(gpa: u64, width: Width, op: Op) -> Trap {
    Trap { at: Address::Gpa(Gpa(gpa)), width, op }
}

#[test]
fn a_guest_reaches_the_device_through_the_access_path() {
    let served = Served::new();
    let (mut path, endpoint) = guest(open(&served, Options::default()));
    served.seen();
    path.carry_out(gpa(0xb_8000, Width::B2, Op::Write(0x0741)));
    path.carry_out(port(0x3c4, Width::B2, Op::Write(0x0f02)));
    path.carry_out(port(0x1ce, Width::B2, Op::Write(0)));
    path.carry_out(port(0x1cf, Width::B2, Op::Write(0xb0c5)));
    assert_eq!(path.carry_out(port(0x1cf, Width::B2, Op::Read)), 0xb0c5);
    assert_eq!(path.carry_out(gpa(0xb_8000, Width::B2, Op::Read)), 0x0741);
    assert_eq!(path.carry_out(gpa(0xe100_0500, Width::B2, Op::Read)), 0xb0c5);
    assert_eq!(path.carry_out(port(0x3bc, Width::B1, Op::Read)), 0xff);
    assert_eq!(path.carry_out(gpa(0xe100_0900, Width::B4, Op::Read)), 0xffff_ffff);
    assert_eq!(endpoint.faults(), 1);
    assert_eq!(
        served.seen()[..2],
        [
            Access::write(Region::VGA, 0xb_8000, Width::B2, 0x0741),
            Access::write(Region::VGA, 0x3c4, Width::B2, 0x0f02),
        ]
    );
}

#[test]
fn a_region_of_its_own_is_mapped_read_only() {
    let mut described = description(sealed());
    let page = memfd(4096, SealFlags::SHRINK | SealFlags::FUTURE_WRITE);
    let description = Memory { file: Arc::new(page), offset: 0, areas: None };
    described.regions[9] =
        RegionDescription { size: 4096, readable: true, writable: false, memory: Some(description) };
    let served = Served::with(described);
    let function = open(&served, Options::default());
    assert_eq!(function.mapping(Region(9)).unwrap().size(), 4096);
    assert_eq!(function.mapping(Region::bar(0)).unwrap().size() as u64, toy::FRAME_BUFFER);
}

#[test]
fn a_bar_that_cannot_be_written_is_trapped() {
    let mut described = description(sealed());
    described.regions[0].writable = false;
    let served = Served::with(described);
    let mut function = open(&served, Options::default());
    place_bars(&mut function);
    let claims = function.claims().ranges;
    assert!(find(&claims, memory(0xe000_0000, toy::FRAME_BUFFER)).unwrap().direct.is_none());
}

#[test]
fn a_device_that_dies_reads_all_ones_at_once() {
    let mut served = Served::new();
    let reports = Arc::new(Reports::default());
    let settings = Settings { events: Some(reports.clone()), ..Settings::default() };
    let client = Client::connect(&served.path, settings).unwrap();
    let function = Function::open(client, Options::default()).unwrap();
    let (mut path, endpoint) = guest(function);
    assert_eq!(path.carry_out(gpa(0xe100_0000, Width::B4, Op::Read)), 0);
    served.end();
    let start = Instant::now();
    assert_eq!(path.carry_out(gpa(0xe100_0000, Width::B4, Op::Read)), 0xffff_ffff);
    assert_eq!(path.carry_out(port(0x3cc, Width::B1, Op::Read)), 0xff);
    assert_eq!(endpoint.with_device(|device| device.read(Region::CONFIG, 0, Width::B4)), Err(Fault::Failed));
    endpoint.with_device(|device| device.reset());
    // A server that is waited for has 5 s for each answer.
    assert!(start.elapsed() < Duration::from_millis(4500), "{:?}", start.elapsed());
    assert_eq!(reports.failures().len(), 1);
}
