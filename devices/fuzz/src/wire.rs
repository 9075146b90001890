//! Messages of vfio-user: what decodes encodes to the same bytes again, as far as they count.

use trapline_devices::vfio_user::wire::{Command, HEADER, Header, RegionReply, Request, Version};

fn request(command: Command, payload: &[u8]) {
    let Ok(request) = Request::decode(command, payload) else { return };
    assert_eq!(request.command(), command);
    if matches!(request, Request::Unknown(_)) {
        return;
    }
    let encoded = request.encode(|fixed, data| [fixed, data].concat());
    assert_eq!(Request::decode(command, &encoded).as_ref(), Ok(&request));
}

fn region_reply(payload: &[u8]) {
    let Ok(reply) = RegionReply::decode(payload) else { return };
    let (encoded, complete) = reply.encode(u32::MAX);
    assert!(complete);
    let again = RegionReply::decode(&encoded).expect("our own message");
    assert_eq!(again.areas, reply.areas);
    assert_eq!(again.info.size, reply.info.size);
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<(u8, &[u8])>(data) else { return };
    let (what, bytes) = input;
    match what {
        0..16 => request(Command(what.into()), bytes),
        16..24 => region_reply(bytes),
        24..32 => {
            if let Ok(version) = Version::decode(bytes) {
                assert_eq!(Version::decode(&version.encode()), Ok(version));
            }
        }
        _ => {
            let Some((head, payload)) = bytes.split_first_chunk::<HEADER>() else { return };
            let Ok(header) = Header::decode(*head) else { return };
            assert_eq!(Header::decode(header.encode()), Ok(header));
            request(header.command, payload);
        }
    }
}
