use proptest::prelude::*;
use zerocopy::FromZeros;

use super::*;

fn header() -> impl Strategy<Value = Header> {
    let kind = prop_oneof![
        any::<bool>().prop_map(|no_reply| Kind::Command { no_reply }),
        Just(Kind::Reply),
        any::<u32>().prop_map(Kind::Refusal),
    ];
    (any::<u16>(), any::<u16>(), kind, 0..=MAX_MESSAGE - HEADER)
        .prop_map(|(id, command, kind, payload)| Header::new(id, Command(command), kind, payload))
}

/// A value of a wire structure from arbitrary bytes.
fn body<T: FromBytes + std::fmt::Debug>() -> impl Strategy<Value = T> {
    prop::collection::vec(any::<u8>(), size_of::<T>())
        .prop_map(|bytes| T::read_from_bytes(&bytes).unwrap_or_else(|_| unreachable!("sized to fit")))
}

fn payload_of(request: &Request<'_>) -> Vec<u8> {
    request.encode(|fixed, data| [fixed, data].concat())
}

proptest! {
    #[test]
    fn a_header_survives(header in header()) {
        prop_assert_eq!(Header::decode(header.encode()), Ok(header));
    }

    #[test]
    fn any_header_is_decoded_or_refused(bytes in any::<[u8; HEADER]>()) {
        if let Ok(header) = Header::decode(bytes) {
            prop_assert!(header.payload() <= MAX_MESSAGE - HEADER);
        }
    }

    #[test]
    fn any_payload_is_decoded_or_refused(command in 0u16..20, bytes in prop::collection::vec(any::<u8>(), 0..96)) {
        if let Ok(request) = Request::decode(Command(command), &bytes)
            && !matches!(request, Request::Version(_) | Request::Unknown(_))
        {
            prop_assert_eq!(payload_of(&request), bytes);
        }
    }

    #[test]
    fn any_region_answer_is_decoded_or_refused(
        mut info in body::<RegionInfo>(),
        tail in prop::collection::vec(any::<u8>(), 0..128),
        cap in 0u32..160,
    ) {
        info.flags = (info.flags.get() | 8).into();
        info.cap_offset = cap.into();
        info.argsz = (info.argsz.get() % 160).into();
        let bytes = [info.as_bytes(), &tail].concat();
        let _ = RegionReply::decode(&bytes);
    }

    #[test]
    fn a_region_answer_survives(mut info in body::<RegionInfo>(), areas in prop::option::of(prop::collection::vec(body::<Area>(), 0..20))) {
        let caps = areas.is_some();
        let reply = RegionReply { info, areas };
        let (bytes, whole) = reply.encode(u32::MAX);
        prop_assert!(whole);
        let back = RegionReply::decode(&bytes).unwrap();
        info.argsz = u32::try_from(bytes.len()).unwrap().into();
        info.flags = RegionFlags::from_bits(info.flags.get()).with_caps(caps).into_bits().into();
        info.cap_offset = if caps { 32 } else { 0 }.into();
        prop_assert_eq!(back.info, info);
        prop_assert_eq!(back.areas, reply.areas);
    }

    #[test]
    fn an_access_survives(mut access in body::<RegionAccess>(), data in prop::collection::vec(any::<u8>(), 0..64)) {
        access.count = u32::try_from(data.len()).unwrap().into();
        for request in [Request::RegionWrite(access, &data), Request::RegionRead(access)] {
            let bytes = payload_of(&request);
            prop_assert_eq!(Request::decode(request.command(), &bytes), Ok(request));
        }
    }

    #[test]
    fn an_irq_set_survives(mut set in body::<IrqSet>(), data in prop::collection::vec(any::<u8>(), 0..64)) {
        set.flags = IrqSetFlags::new().with_bools(true).with_trigger(true).into_bits().into();
        set.count = u32::try_from(data.len()).unwrap().into();
        let request = Request::SetIrqs(set, &data);
        let bytes = payload_of(&request);
        prop_assert_eq!(Request::decode(request.command(), &bytes), Ok(request));
    }

    #[test]
    fn a_version_survives(major: u16, minor: u16, fds: u64, xfer in 8u64.., maps: u64, pgsizes: u64) {
        let capabilities =
            Capabilities { max_msg_fds: fds, max_data_xfer_size: xfer, max_dma_maps: maps, pgsizes };
        let version = Version { major, minor, capabilities };
        prop_assert_eq!(Version::decode(&version.encode()), Ok(version));
    }

    #[test]
    fn any_version_data_is_decoded_or_refused(text in "\\PC{0,64}") {
        let bytes = [&[0, 0, 1, 0], text.as_bytes(), &[0]].concat();
        let _ = Version::decode(&bytes);
    }
}

#[test]
fn a_header_too_short_or_too_long_is_refused() {
    let mut header = Header::new(1, Command::RESET, Kind::Command { no_reply: false }, 0);
    header.size = 15;
    assert_eq!(Header::decode(header.encode()), Err(Malformed::Size { size: 15 }));
    header.size = u32::MAX;
    assert_eq!(Header::decode(header.encode()), Err(Malformed::Size { size: u32::MAX }));
    let mut bytes = Header { size: 16, ..header }.encode();
    bytes[8] = 7;
    assert_eq!(Header::decode(bytes), Err(Malformed::Type(7)));
}

#[test]
fn version_data_may_be_missing_but_not_broken() {
    let version = Version::decode(&[0, 0, 1, 0]).unwrap();
    assert_eq!(version.capabilities, Capabilities::default());
    let unknown = b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":8,\"migration\":{\"pgsize\":4096}}}\0";
    assert_eq!(Version::decode(unknown).unwrap().capabilities.max_msg_fds, 8);
    for broken in [
        &b"\0\0\x01\0{\"capabilities\":\0"[..],
        b"\0\0\x01\0{}",
        b"\0\0\x01\0{\"capabilities\":{\"max_msg_fds\":\"many\"}}\0",
        b"\0\0\x01\0{\"capabilities\":{\"max_data_xfer_size\":4}}\0",
    ] {
        assert!(matches!(Version::decode(broken), Err(Malformed::Version(_))), "{broken:?}");
    }
    assert!(matches!(Version::decode(&[0, 0]), Err(Malformed::Length { .. })));
}

#[test]
fn data_must_be_as_long_as_announced() {
    let mut access = RegionAccess::new_zeroed();
    access.count = 5.into();
    let bytes = [access.as_bytes(), &[1, 2, 3, 4]].concat();
    assert_eq!(
        Request::decode(Command::REGION_WRITE, &bytes),
        Err(Malformed::Length { command: Command::REGION_WRITE, have: 20, want: 21 })
    );
    access.count = u32::MAX.into();
    assert!(matches!(
        Request::decode(Command::REGION_READ, access.as_bytes()),
        Err(Malformed::Value { what: "count", .. })
    ));
}

#[test]
fn a_capability_list_may_not_go_in_circles() {
    let info = RegionInfo::new_zeroed();
    let reply = RegionReply { info, areas: Some(vec![Area::default()]) };
    let (mut bytes, _) = reply.encode(u32::MAX);
    bytes[36] = 32; // the capability's own offset as the next one
    assert_eq!(RegionReply::decode(&bytes), Err(Malformed::Capability(32)));
    bytes[36] = 0;
    bytes[40] = 2; // one area more than there are bytes
    assert_eq!(RegionReply::decode(&bytes), Err(Malformed::Capability(32)));
}

#[test]
fn capabilities_that_do_not_fit_are_announced() {
    let reply = RegionReply { info: RegionInfo::new_zeroed(), areas: Some(vec![Area::default(); 2]) };
    let (bytes, whole) = reply.encode(32);
    assert!(!whole);
    assert_eq!(bytes.len(), 32);
    assert_eq!(bytes[0], 32 + 8 + 8 + 32);
}
