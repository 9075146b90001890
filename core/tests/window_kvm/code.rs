//! Guest code, 16-bit real mode, put together from pieces.

/// `mov al, value; mov dx, port; out dx, al`
pub fn out8(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0xb0, value, 0xba, low, high, 0xee]
}

/// `mov ax, value; mov dx, port; out dx, ax`
pub fn out16(port: u16, value: u16) -> Vec<u8> {
    let ([low, high], [first, second]) = (port.to_le_bytes(), value.to_le_bytes());
    vec![0xb8, first, second, 0xba, low, high, 0xef]
}

/// `mov dx, port; in al, dx`
pub fn in8(port: u16) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0xba, low, high, 0xec]
}

/// `mov ax, segment; mov es, ax; mov ds, ax`
pub fn segments(segment: u16) -> Vec<u8> {
    let [low, high] = segment.to_le_bytes();
    vec![0xb8, low, high, 0x8e, 0xc0, 0x8e, 0xd8]
}

/// `mov di, at; mov ax, value; mov cx, count; cld; rep stosw`
pub fn words(at: u16, value: u16, count: u16) -> Vec<u8> {
    let mut code = vec![0xbf];
    code.extend(at.to_le_bytes());
    code.push(0xb8);
    code.extend(value.to_le_bytes());
    code.push(0xb9);
    code.extend(count.to_le_bytes());
    code.extend([0xfc, 0xf3, 0xab]);
    code
}

/// The same with `rep stosb`.
pub fn bytes(at: u16, value: u8, count: u16) -> Vec<u8> {
    let mut code = words(at, value.into(), count);
    code.pop();
    code.push(0xaa);
    code
}

/// Writes to `count` words from `at` on, each another value, by single instructions in a loop.
pub fn ascending(at: u16, first: u16, count: u16) -> Vec<u8> {
    let mut code = vec![0xbf];
    code.extend(at.to_le_bytes()); // mov di, at
    code.push(0xb8);
    code.extend(first.to_le_bytes()); // mov ax, first
    code.push(0xb9);
    code.extend(count.to_le_bytes()); // mov cx, count
    code.extend([
        0x89, 0x05, // again: mov [di], ax
        0x83, 0xc7, 0x02, // add di, 2
        0x40, // inc ax
        0xe2, 0xf8, // loop again
    ]);
    code
}

/// Copies `count` words from `from` to `to`, upwards, within the segments: reads and writes mixed.
pub fn copy(to: u16, from: u16, count: u16) -> Vec<u8> {
    let mut code = vec![0xbe];
    code.extend(from.to_le_bytes());
    code.push(0xbf);
    code.extend(to.to_le_bytes());
    code.push(0xb9);
    code.extend(count.to_le_bytes());
    code.extend([0xfc, 0xf3, 0xa5]);
    code
}

/// Writes a dword of the configuration space of 00:01.0.
pub fn configure(offset: u8, value: u32) -> Vec<u8> {
    let mut code = vec![0x66, 0xb8]; // mov eax, ...
    code.extend((0x8000_0800 | u32::from(offset)).to_le_bytes());
    code.extend([0xba, 0xf8, 0x0c, 0x66, 0xef, 0x66, 0xb8]); // mov dx, 0xcf8; out dx, eax; mov eax, ...
    code.extend(value.to_le_bytes());
    code.extend([0xba, 0xfc, 0x0c, 0x66, 0xef]); // mov dx, 0xcfc; out dx, eax
    code
}

/// Runs `body` so many times, 1 to 65535. `body` may use any register.
pub fn times(count: u16, body: &[u8]) -> Vec<u8> {
    let mut code = vec![0xbd];
    code.extend(count.to_le_bytes()); // mov bp, count
    code.extend(body_with_counter(body));
    code
}

fn body_with_counter(body: &[u8]) -> Vec<u8> {
    let mut code = body.to_vec();
    code.push(0x4d); // dec bp
    let back = -i16::try_from(code.len() + 4).unwrap();
    code.extend([0x0f, 0x85]); // jnz body
    code.extend(back.to_le_bytes());
    code
}

/// Has all other vCPUs start at f800:0000.
pub const START_OTHERS: &[u8] = &[
    0x66, 0xb9, 0x1b, 0, 0, 0, // mov ecx, 0x1b: APIC base
    0x0f, 0x32, // rdmsr
    0x80, 0xcc, 0x0c, // or ah, 0x0c: x2APIC
    0x0f, 0x30, // wrmsr
    0x66, 0xb9, 0x30, 0x08, 0, 0, // mov ecx, 0x830: interrupt command
    0x66, 0x31, 0xd2, // xor edx, edx
    0x66, 0xb8, 0x00, 0x45, 0x0c, 0, // mov eax, 0xc4500: INIT to all others
    0x0f, 0x30, // wrmsr
    0x66, 0xb8, 0xf8, 0x46, 0x0c, 0, // mov eax, 0xc46f8: start at f8000
    0x0f, 0x30, // wrmsr
];

/// `cli; hlt`, for ever.
pub const HALT: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfc];
