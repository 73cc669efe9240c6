//! Headers as they come, right and wrong.
use super::*;

#[track_caller]
fn line(text: &str, expected: Option<(&str, &str)>) {
    let bytes = [text.as_bytes(), b"hello"].concat();
    assert_eq!(recognise(&bytes), Kind::Header(Version::V1), "{text:?}");
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    let ends = expected.map(|(source, destination)| (address(source), address(destination)));
    let whole = Header {
        length: text.len(),
        ends,
        tlvs: Vec::new(),
    };
    assert_eq!(read(Version::V1, &bytes), Reading::Whole(whole), "{text:?}");
}

#[track_caller]
fn wrong_line(text: &str) {
    assert_eq!(read(Version::V1, text.as_bytes()), Reading::Wrong, "{text:?}");
}

/// A header of version 2 with these bytes after its signature.
fn binary(after: &[u8]) -> Vec<u8> {
    [V2_SIGNATURE, after].concat()
}

const ENDS: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 10, 0, 20];

#[test]
fn a_line_names_both_ends_or_none() {
    line(
        "PROXY TCP4 1.2.3.4 5.6.7.8 10 20\r\n",
        Some(("1.2.3.4:10", "5.6.7.8:20")),
    );
    line(
        "PROXY TCP4 1.2.3.4 5.6.7.8 10 20  \r\n",
        Some(("1.2.3.4:10", "5.6.7.8:20")),
    );
    line(
        "PROXY TCP6 2001:db8::1 ::2 10 20\r\n",
        Some(("[2001:db8::1]:10", "[::2]:20")),
    );
    line("PROXY UNKNOWN\r\n", None);
    line("PROXY UNKNOWN what ever\r\n", None);
    line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)), None);
}

#[test]
fn a_line_with_anything_else_is_wrong() {
    wrong_line("PROXY TCP4  1.2.3.4 5.6.7.8 10 20\r\n");
    wrong_line("PROXY TCP4 1.2.3.4 5.6.7.8 10 99999\r\n");
    wrong_line("PROXY TCP4 1.2.3.4 5.6.7.8 10 20 30\r\n");
    wrong_line("PROXY TCP4 1.2.3.4 5.6.7.8 10\r\n");
    wrong_line("PROXY TCP4 ::1 ::2 10 20\r\n");
    wrong_line("PROXY TCP6 1.2.3.4 5.6.7.8 10 20\r\n");
    wrong_line("PROXY tcp4 1.2.3.4 5.6.7.8 10 20\r\n");
    wrong_line("PROXY TCP4 0.0.0.0 5.6.7.8 10 20\r\n");
    wrong_line("PROXY TCP4 1.2.3.4 224.0.0.1 10 20\r\n");
    wrong_line("PROXY TCP4 255.255.255.255 5.6.7.8 10 20\r\n");
    wrong_line("PROXY\r\n");
    wrong_line("GET /\r\n");
    wrong_line(&format!("PROXY UNKNOWN {}\r\n", "x".repeat(93)));
}

#[test]
fn what_a_header_is_shows_in_its_first_bytes() {
    for unclear in ["", "PRO", "short", "\r\n", "\r\nfoo", "PROXY TCP4 1.2.3.4 5"] {
        assert_eq!(recognise(unclear.as_bytes()), Kind::Unclear, "{unclear:?}");
    }
    let endless = "PROXY TCP4 ".to_owned() + &"x".repeat(98);
    for neither in ["GET / HTTP/1.1\r\n\r\n", "\r\nfoofoofoofoofoo", &endless] {
        assert_eq!(recognise(neither.as_bytes()), Kind::Neither, "{neither:?}");
    }
    assert!(may_become(Version::V1, b"PROX") && !may_become(Version::V1, b"PROZ"));
    assert!(may_become(Version::V2, b"\r\n\r\n") && !may_become(Version::V2, b"hello"));
}

#[test]
fn a_binary_header_is_read_when_all_of_it_is_there() {
    let tlvs = [2, 0, 3, b'a', b'b', b'c', 0xea, 0, 0];
    let bytes = binary(&[&[0x21, 0x11, 0, 21], &ENDS[..], &tlvs, b"hello"].concat());
    for count in 0..37 {
        let part = &bytes[..count];
        let reading = match recognise(part) {
            Kind::Header(version) => read(version, part),
            kind => {
                assert_eq!(kind, Kind::Unclear, "{count}");
                continue;
            }
        };
        assert_eq!(reading, Reading::NeedMore, "{count}");
    }
    let tlv = |kind, value: &'static [u8]| Tlv {
        kind,
        value: Bytes::from_static(value),
    };
    let whole = Header {
        length: 37,
        ends: Some((
            SocketAddr::from(([1, 2, 3, 4], 10)),
            SocketAddr::from(([5, 6, 7, 8], 20)),
        )),
        tlvs: vec![tlv(2, b"abc"), tlv(0xea, b"")],
    };
    assert_eq!(read(Version::V2, &bytes), Reading::Whole(whole));
}

#[test]
fn a_local_header_is_skipped_with_all_that_it_announces() {
    let whole = Header {
        length: 19,
        ends: None,
        tlvs: Vec::new(),
    };
    let bytes = binary(&[0x20, 0x00, 0, 3, 1, 2, 3]);
    assert_eq!(read(Version::V2, &bytes), Reading::Whole(whole));
    assert_eq!(read(Version::V2, &bytes[..18]), Reading::NeedMore);
}

#[test]
fn a_binary_header_that_breaks_the_rules_is_wrong() {
    let wrong = |fixed: [u8; 4], rest: &[u8]| {
        let bytes = binary(&[&fixed[..], rest].concat());
        assert_eq!(read(Version::V2, &bytes), Reading::Wrong, "{fixed:?} {rest:?}");
    };
    wrong([0x31, 0x11, 0, 12], &ENDS);
    wrong([0x22, 0x11, 0, 12], &ENDS);
    wrong([0x21, 0x10, 0, 12], &ENDS);
    wrong([0x21, 0x01, 0, 12], &ENDS);
    wrong([0x21, 0x31, 0, 216], &[b'x'; 216]);
    wrong([0x21, 0x11, 0, 11], &ENDS);
    wrong([0x21, 0x11, 0, 12], &[0; 12]);
    wrong([0x21, 0x11, 0, 14], &[&ENDS[..], &[2, 0]].concat());
    wrong([0x21, 0x11, 0, 17], &[&ENDS[..], &[2, 0, 5, 1, 1]].concat());
}

#[test]
fn what_is_written_is_read_again() {
    let pairs = [("1.2.3.4:10", "5.6.7.8:20"), ("[2001:db8::1]:10", "[::2]:20")];
    for (source, destination) in pairs {
        let ends: (SocketAddr, SocketAddr) = (
            source.parse().expect("an address"),
            destination.parse().expect("an address"),
        );
        let tlvs: [(u8, &[u8]); 2] = [(2, b"abc"), (0xea, b"")];
        let headers = [
            (Version::V1, v1(ends.0, ends.1)),
            (Version::V2, v2(ends.0, ends.1, tlvs.into_iter())),
        ];
        for (version, bytes) in headers {
            let Reading::Whole(header) = read(version, &bytes) else {
                panic!("{version:?} {source}: {bytes:?}")
            };
            assert_eq!((header.length, header.ends), (bytes.len(), Some(ends)));
            assert_eq!(header.tlvs.len(), if version == Version::V2 { 2 } else { 0 });
        }
    }
    let local = v2_local();
    assert!(matches!(read(Version::V2, &local), Reading::Whole(header) if header.ends.is_none()));
}

#[test]
fn tlvs_that_do_not_fit_are_left_out() {
    let end = SocketAddr::from(([1, 2, 3, 4], 10));
    let long = vec![b'x'; 40_000];
    let header = v2(end, end, [(2, &long[..]), (3, &long[..])].into_iter());
    assert_eq!(header.len(), 28);
    assert_eq!(recognise(&header), Kind::Header(Version::V2));
}
