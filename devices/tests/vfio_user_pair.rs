//! Our client against our server, over real sockets.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use trapline_devices::assigned::backend::Irqs;
use trapline_devices::assigned::{Backend, Function};
use trapline_devices::vfio_user::Client;
use trapline_devices::vfio_user::client::{Error, Settings};
use trapline_devices::vfio_user::server::{self, Description, IrqType, Memory, RegionDescription, Server};
use trapline_devices::vfio_user::wire::{Command, DmaFlags, Header, IrqFlags, IrqSetFlags, Kind};
use trapline_io::{Access, Device, Fault, Region, Width};
use vm_memory::{Bytes, VolatileMemory};

#[path = "assigned_card/card.rs"]
mod fake;
#[path = "vfio_user_toy/device.rs"]
mod toy;
use toy::{Reports, Served, Toy, blob, description, memfd, sealed};

/// Less than a client waits for an answer.
const AT_ONCE: Duration = Duration::from_millis(4500);

fn connect(served: &Served) -> Client {
    Client::connect(&served.path, Settings::default()).unwrap()
}

#[test]
fn regions_are_as_described() {
    let served = Served::new();
    let client = connect(&served);
    let regions = client.regions();
    assert_eq!(regions.len(), 10);
    assert_eq!(regions[0].mappings.len(), 1);
    assert_eq!((regions[6].size, regions[6].readable, regions[6].writable), (5000, true, false));
    assert_eq!(regions[1].size, 0);
    assert!(client.resettable());
    assert_eq!(client.irq_types(), 3);
}

#[test]
fn accesses_reach_the_device_in_their_width() {
    let served = Served::new();
    let mut client = connect(&served);
    let bar = Region(2);
    for (width, value) in [(Width::B1, 0x5a), (Width::B2, 0x1234), (Width::B4, 0x8765_4321)] {
        client.write(bar, 0x10, width, value).unwrap();
        assert_eq!(client.read(bar, 0x10, width), Ok(value));
        let seen = served.seen();
        assert_eq!(seen, [Access::write(bar, 0x10, width, value), Access::read(bar, 0x10, width)]);
    }
    client.write(Region::VGA, 0xb_8000, Width::B8, 0x0741_0742_0743_0744).unwrap();
    assert_eq!(client.read(Region::VGA, 0xb_8000, Width::B8), Ok(0x0741_0742_0743_0744));
}

#[test]
fn faults_cross_the_socket() {
    let served = Served::new();
    let mut client = connect(&served);
    assert_eq!(client.read(Region(2), 0x800, Width::B4), Err(Fault::NoRegister));
    assert_eq!(client.write(Region(2), 0x800, Width::B4, 1), Err(Fault::NoRegister));
    assert_eq!(client.read(Region(2), 0, Width::B8), Err(Fault::BadWidth));
    assert_eq!(client.read(Region(2), 4095, Width::B2), Err(Fault::BadWidth));
    assert_eq!(client.read(Region(44), 0, Width::B1), Err(Fault::BadWidth));
    assert_eq!(client.write(Region::ROM, 0, Width::B1, 1), Err(Fault::Failed));
    assert_eq!(client.read(Region(2), u64::MAX, Width::B2), Err(Fault::BadWidth));
    assert!(!client.is_dead());
    assert_eq!(client.read(Region(2), 0, Width::B4), Ok(0));
}

#[test]
fn a_long_read_comes_in_one_piece() {
    let served = Served::new();
    let mut client = connect(&served);
    let mut bytes = vec![0; blob().len()];
    client.region_read(9, 0, &mut bytes).unwrap();
    assert_eq!(bytes, blob());
    let mut odd = [0; 7];
    client.region_read(9, 1, &mut odd).unwrap();
    assert_eq!(odd, blob()[1..8]);
}

#[test]
fn a_run_of_bytes_arrives_whole() {
    let mut served = Served::new();
    let mut client = connect(&served);
    let run: Vec<u8> = (0..4001_u32).map(|at| (at * 11 % 253) as u8).collect();
    client.write_bytes(Region::VGA, 0xb_8001, &run).unwrap();
    assert_eq!(client.write_bytes(Region::VGA, 0xc_0000 - 4000, &run), Err(Fault::BadWidth));
    assert!(served.seen().len() < 600, "one request, and the server's widest accesses");
    drop(client);
    let vga = served.end().unwrap().vga;
    assert_eq!((&vga[0xb_8001..][..4001], vga[0xb_8000], vga[0xb_8001 + 4001]), (&run[..], 0, 0));
}

#[test]
fn mapped_memory_is_shared() {
    let memory = sealed();
    let other = vm_memory::MmapRegion::<()>::from_file(
        vm_memory::FileOffset::new(memory.file.try_clone().unwrap().into(), 0),
        4096,
    )
    .unwrap();
    let served = Served::with(description(memory));
    let client = connect(&served);
    let mapping = &client.regions()[0].mappings[0];
    mapping.memory.get_slice(0, 4096).unwrap().write_obj(0x1122_3344u32, 8).unwrap();
    assert_eq!(other.get_slice(0, 4096).unwrap().read_obj::<u32>(8).unwrap(), 0x1122_3344);
}

#[test]
fn areas_are_mapped_one_by_one() {
    let areas = Some(vec![(0x1000, 0x1000), (0x4000, 0x3000)]);
    let served = Served::with(description(Memory { areas, ..sealed() }));
    let client = connect(&served);
    let mappings: Vec<_> = client.regions()[0].mappings.iter().map(|m| (m.offset, m.memory.size())).collect();
    assert_eq!(mappings, [(0x1000, 0x1000), (0x4000, 0x3000)]);
}

#[test]
fn memory_that_may_shrink_or_is_too_short_is_not_mapped() {
    let bad = [
        Memory { file: Arc::new(memfd(toy::FRAME_BUFFER, SealFlags::GROW)), offset: 0, areas: None },
        Memory { file: Arc::new(memfd(4096, SealFlags::SHRINK)), offset: 0, areas: None },
        Memory { offset: 4096, ..sealed() },
        Memory { areas: Some(vec![(0, 0x2000), (0x1000, 0x1000)]), ..sealed() },
        Memory { areas: Some(vec![(0x800, 0x1000)]), ..sealed() },
        Memory { areas: Some(vec![(u64::MAX - 4095, 0x1000)]), ..sealed() },
    ];
    for memory in bad {
        let text = format!("{memory:?}");
        let served = Served::with(description(memory));
        let mut client = connect(&served);
        assert!(client.regions()[0].mappings.is_empty(), "{text}");
        assert_eq!(client.read(Region(2), 0, Width::B1), Ok(0));
    }
}

#[test]
fn huge_pages_that_may_not_be_there_are_not_mapped() {
    const HUGE: u64 = 2 << 20;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let Ok(file) = memfd_create("toy", flags) else {
        println!("skipped: this kernel has no huge pages, of which none need be free");
        return;
    };
    ftruncate(&file, HUGE).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let mut described = description(sealed());
    let memory = Memory { file: Arc::new(file), offset: 0, areas: None };
    described.regions[0] = RegionDescription::memory(HUGE, memory);
    let served = Served::with(described);
    let mut client = connect(&served);
    assert!(client.regions()[0].mappings.is_empty());
    // The toy has no registers there, and so refuses; but it was asked.
    assert!(client.read(Region::bar(0), 8, Width::B4).is_err());
    assert_eq!(served.seen(), [Access::read(Region::bar(0), 8, Width::B4)]);
}

#[test]
fn a_reset_reaches_the_device() {
    let mut served = Served::new();
    let mut client = connect(&served);
    client.write(Region(2), 0, Width::B1, 9).unwrap();
    client.reset().unwrap();
    assert_eq!(client.read(Region(2), 0, Width::B1), Ok(0));
    drop(client);
    assert_eq!(served.end().unwrap().resets, 1);
}

#[test]
fn interrupts_are_set_up_in_as_many_messages_as_it_takes() {
    let server = Server::unbound(description(sealed())).unwrap();
    let (interrupts, stop) = (server.interrupts(), server.stop_handle());
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || server.serve(theirs, &mut Toy::new()).map_err(|e| e.reason()));
    let mut client = Client::over(ours, Settings::default()).unwrap();
    assert_eq!(client.irq_info(2).unwrap().1, 20);
    assert!(matches!(client.irq_info(3), Err(Error::Refused { .. })));
    let fds: Vec<_> = (0..20).map(|_| eventfd(0, EventfdFlags::NONBLOCK).unwrap()).collect();
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let flags = IrqSetFlags::new().with_eventfds(true).with_trigger(true);
    client.set_irqs(2, flags, 0, 20, &borrowed).unwrap();
    assert!(interrupts.trigger(2, 18));
    let mut count = [0; 8];
    assert_eq!(rustix::io::read(&fds[18], &mut count), Ok(8));
    assert_eq!(rustix::io::read(&fds[17], &mut count), Err(rustix::io::Errno::AGAIN));
    stop.stop();
    assert_eq!(thread.join().unwrap(), Ok(()));
    assert!(!interrupts.trigger(2, 18), "the eventfds of a client that is gone are dropped");
}

/// A toy that signals INTx and three MSI-X vectors, whose table is in BAR 2.
fn signalling() -> (Description, Toy) {
    let kind = |count| IrqType { flags: IrqFlags::new().with_eventfd(true).with_noresize(true), count };
    let mut toy = Toy::new();
    toy.config[6] = 0x10;
    toy.config[0x34] = 0x40;
    toy.config[0x3d] = 1;
    toy.config[0x40..0x4c].copy_from_slice(&[0x11, 0, 2, 0, 2, 0, 0, 0, 2, 8, 0, 0]);
    (Description { irqs: vec![kind(1), kind(0), kind(3)], ..description(sealed()) }, toy)
}

#[test]
fn a_guest_takes_the_interrupts_of_a_served_device() {
    let (description, mut toy) = signalling();
    let server = Server::unbound(description).unwrap();
    let (interrupts, stop) = (server.interrupts(), server.stop_handle());
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let thread = std::thread::spawn(move || server.serve(theirs, &mut toy).map_err(|e| e.reason()));
    let client = Client::over(ours, Settings::default()).unwrap();
    let irqs = Irqs { intx: true, msi: 0, msix: 3, msix_grows: false };
    assert_eq!(client.irqs(), irqs);
    let host = fake::Host::new();
    let mut function = Function::open(client, host.options()).unwrap();
    assert_eq!(host.lines(), 1);
    assert!(interrupts.trigger(0, 0) && !interrupts.trigger(2, 0));
    let mut write = |region, offset, value| function.write(region, offset, Width::B4, value).unwrap();
    write(Region::CONFIG, 0x40, 0x8000_0000);
    assert!(!interrupts.trigger(0, 0) && interrupts.trigger(2, 0) && !interrupts.trigger(2, 2));
    for (vector, data) in [(0, 0x41), (2, 0x43)] {
        for (register, value) in [(0, 0xfee0_0000), (8, data), (12, 0)] {
            write(Region(0xf1), 16 * vector + register, value);
        }
    }
    assert!(interrupts.trigger(2, 2));
    let message = |data| fake::message(0xfee0_0000, data);
    assert_eq!(host.delivered(), [message(0x41), message(0x43)]);
    write(Region::CONFIG, 0x40, 0);
    assert!(interrupts.trigger(0, 0) && !interrupts.trigger(2, 0));
    drop(function);
    assert!(!interrupts.trigger(0, 0));
    stop.stop();
    // The function closed the connection itself.
    let _ = thread.join().unwrap();
}

#[test]
fn dma_windows_are_kept_apart() {
    let served = Served::new();
    let mut client = connect(&served);
    let rights = DmaFlags::new().with_read(true).with_write(true);
    let file = memfd(0x4000, SealFlags::SHRINK);
    client.dma_map(0x1000, 0x3000, rights, Some((file.as_fd(), 0x1000))).unwrap();
    assert!(matches!(client.dma_map(0x3000, 0x1000, rights, None), Err(Error::Refused { errno: 17, .. })));
    client.dma_unmap(0x1000, 0x3000).unwrap();
    client.dma_map(0x3000, 0x1000, rights, None).unwrap();
}

#[test]
fn one_client_after_the_other() {
    let served = Served::new();
    let mut first = connect(&served);
    first.write(Region(2), 0, Width::B1, 7).unwrap();
    drop(first);
    let mut second = connect(&served);
    assert_eq!(second.read(Region(2), 0, Width::B1), Ok(7), "the device keeps its state");
}

#[test]
fn a_stale_socket_is_replaced_and_a_used_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = Server::bind(&path, description(sealed())).unwrap();
    assert!(matches!(Server::bind(&path, description(sealed())), Err(server::Error::InUse(_))));
    drop(server);
    assert!(!path.exists(), "the socket is removed at the end");
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(Server::bind(&path, description(sealed())), Err(server::Error::NotASocket(_))));
    assert!(path.exists());
}

#[test]
fn a_server_that_is_not_there_or_takes_nobody_is_no_hang() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none");
    let deadline = Duration::from_millis(100);
    let settings = Settings { deadline, ..Settings::default() };
    let none = Client::connect(&path, settings.clone());
    assert!(matches!(none, Err(Error::Connect { .. })), "{none:?}");
    let family = rustix::net::AddressFamily::UNIX;
    let full = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&full, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let start = Instant::now();
    for _ in 0..3 {
        // The first is queued and never answered, the others do not even get into the queue.
        assert!(Client::connect(&path, settings.clone()).is_err());
    }
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}

#[test]
fn a_server_that_ends_is_noticed_at_once() {
    let mut served = Served::new();
    let reports = Arc::new(Reports::default());
    let settings = Settings { events: Some(reports.clone()), name: "gpu".into(), ..Settings::default() };
    let mut client = Client::connect(&served.path, settings).unwrap();
    served.end();
    let start = Instant::now();
    assert_eq!(client.read(Region(2), 0, Width::B4), Err(Fault::Failed));
    assert_eq!(client.write(Region(2), 0, Width::B4, 1), Err(Fault::Failed));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert!(client.is_dead());
    let failures = reports.failures();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert!(failures[0].contains("gpu"), "{failures:?}");
}

#[test]
fn an_idle_client_notices_by_attending() {
    let mut served = Served::new();
    let reports = Arc::new(Reports::default());
    let settings = Settings { events: Some(reports.clone()), ..Settings::default() };
    let mut client = Client::connect(&served.path, settings).unwrap();
    client.attend();
    assert!(!client.is_dead());
    let attention = client.attention().unwrap();
    served.end();
    let mut fds = [rustix::event::PollFd::new(&attention, rustix::event::PollFlags::IN)];
    let longest = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&longest)), Ok(1));
    client.attend();
    assert!(client.is_dead());
    assert_eq!(reports.failures().len(), 1);
    assert!(!readable(&attention), "a watcher is told of the end once, not for ever");
}

#[test]
fn a_reply_wakes_no_watcher() {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let server = Server::unbound(description(sealed())).unwrap();
    let thread = std::thread::spawn(move || server.serve(theirs, &mut Toy::new()).is_ok());
    let client = Client::over(ours.try_clone().unwrap(), Settings::default()).unwrap();
    let attention = client.attention().unwrap();
    // A question past the client, whose answer stays in the socket.
    let question = Header::new(1, Command::RESET, Kind::Command { no_reply: false }, 0).encode();
    (&ours).write_all(&question).unwrap();
    let mut fds = [rustix::event::PollFd::new(&ours, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, None), Ok(1));
    assert!(!readable(&attention));
    drop((client, ours));
    assert!(thread.join().unwrap());
}

fn readable(fd: &impl AsFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).unwrap() == 1
}
