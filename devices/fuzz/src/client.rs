//! A vfio-user client, and the assigned function on it, with a server that answers anything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{CONFIG, Place, Step, drive};
use arbitrary::Arbitrary;
use trapline_devices::assigned::{Function, Options};
use trapline_devices::vfio_user::Client;
use trapline_devices::vfio_user::client::Settings;
use trapline_devices::vfio_user::wire::{DmaFlags, HEADER, Header};
use trapline_io::{Region, Width};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const PLACES: [Place; 5] = [
    CONFIG[0],
    CONFIG[1],
    (Region::bar(0), 0, 0x1000),
    (Region::bar(2), 0x500, 0x20),
    (Region::VGA, 0x3c0, 0x20),
];

/// What the server does with one request.
#[derive(Arbitrary, Debug)]
enum Answer {
    /// What fits the question, with bytes of the payload changed.
    Plausible { patches: Vec<(u8, u8)>, cut: Option<u8>, more: Vec<u8> },
    /// An error.
    Refusal(u8),
    /// Any bytes behind a header that fits.
    Framed(Vec<u8>),
    /// Any bytes.
    Raw(Vec<u8>),
    /// A request of its own for guest memory, and then the answer that fits.
    Dma { write: bool, address: u32, count: u16 },
}

fn frame(asked: &[u8; HEADER], command: u16, flags: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    let command = command.to_le_bytes();
    [&asked[..2], &command, &size.to_le_bytes(), &flags.to_le_bytes(), &[0; 4], payload].concat()
}

/// What a server of a small device says.
fn plausible(command: u16, asked: &[u8]) -> Vec<u8> {
    let words = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    match command {
        4 => words(&[16, 3, 10, 3]),
        5 => {
            let index = asked.get(4).copied().unwrap_or(0);
            let size = match index {
                0 | 2 => 0x1000,
                6 => 0x800,
                7 => 0x100,
                8 => 0xc_0000,
                _ => 0,
            };
            words(&[32, 7, index.into(), 0, size, 0, 0, 0])
        }
        9 => {
            let count = asked.get(12).copied().unwrap_or(0).into();
            [asked, &[0x11_u8, 0x22, 0, 3].iter().copied().cycle().take(count).collect::<Vec<_>>()[..]]
                .concat()
        }
        10 => asked.get(..16).unwrap_or(asked).to_vec(),
        13 => Vec::new(),
        _ => asked.to_vec(),
    }
}

fn serve(mut socket: UnixStream, answers: Vec<Answer>) -> Option<()> {
    let mut answers = answers.into_iter();
    loop {
        let mut head = [0; HEADER];
        socket.read_exact(&mut head).ok()?;
        let header = Header::decode(head).ok()?;
        let mut asked = vec![0; header.payload()];
        socket.read_exact(&mut asked).ok()?;
        let command = header.command.0;
        // Answers to the server's own requests are no questions.
        if u32::from_le_bytes(head[8..12].try_into().ok()?) & 1 == 1 {
            continue;
        }
        let mut fits = plausible(command, &asked);
        let bytes = match answers.next()? {
            Answer::Plausible { patches, cut, more } => {
                patches.iter().for_each(|(at, value)| {
                    if let Some(byte) = fits.get_mut(usize::from(*at)) {
                        *byte = *value;
                    }
                });
                fits.truncate(cut.map_or(usize::MAX, usize::from));
                fits.extend(more);
                frame(&head, command, 1, &fits)
            }
            Answer::Refusal(errno) => {
                let mut refusal = frame(&head, command, 0x21, &[]);
                refusal[12] = errno;
                refusal
            }
            Answer::Framed(payload) => frame(&head, command, 1, &payload),
            Answer::Raw(bytes) => bytes,
            Answer::Dma { write, address, count } => {
                let mut payload = [u64::from(address), count.into()].map(u64::to_le_bytes).concat();
                payload.extend(std::iter::repeat_n(9, if write { count.into() } else { 0 }));
                let request = frame(&head, if write { 12 } else { 11 }, 0, &payload);
                [request, frame(&head, command, 1, &fits)].concat()
            }
        };
        socket.write_all(&bytes).ok()?;
    }
}

fn use_client(socket: UnixStream, steps: &[Step]) -> Option<()> {
    let settings = Settings { name: "fuzz".into(), deadline: Duration::from_millis(200), events: None };
    let mut client = Client::over(socket, settings).ok()?;
    assert!(client.regions().len() <= 64);
    client.serve_memory(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1_0000)]).ok()?);
    let _ = client.dma_map(0, 0x8000, DmaFlags::new().with_read(true).with_write(true), None);
    let _ = client.dma_map(0xf000, 0x10_0000, DmaFlags::new().with_read(true), None);
    let _ = client.irq_info(steps.len().try_into().unwrap_or(0));
    let _ = client.dma_unmap(0, 0x8000);
    let mut function = Function::open(client, Options::default()).ok()?;
    function.allow_dma();
    drive(&mut function, &PLACES, steps);
    let _ = trapline_io::Device::read(&mut function, Region::ROM, 0, Width::B4);
    trapline_io::Device::attend(&mut function);
    Some(())
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<(u8, Vec<Answer>, Vec<Step>)>(data) else { return };
    let (good, answers, steps) = input;
    // Most servers get through the set-up.
    let plain = || Answer::Plausible { patches: vec![], cut: None, more: vec![] };
    let answers = (0..good).map(|_| plain()).chain(answers).collect();
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    std::thread::scope(|scope| {
        let server = scope.spawn(move || serve(theirs, answers));
        use_client(ours, &steps);
        // The scope waits for its end of work, not of life: that would look like a leak.
        let _ = server.join();
    });
}
