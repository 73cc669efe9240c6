//! Answers, damaged answers, search domains, and servers that fail.
use super::*;

const NAME: &str = "www.example.com";

fn question() -> Question {
    Question::new(7, NAME, Kind::V4).expect("a name")
}

/// Header and question of an answer with these flags and this many records.
fn begin(flags: u16, records: u16) -> Vec<u8> {
    let mut bytes = question().encode(None).expect("a name");
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&records.to_be_bytes());
    bytes
}

/// A record of the question's name, which a pointer names.
fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12];
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1_u16.to_be_bytes());
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn read(bytes: &[u8]) -> Result<Answer, MalformedAnswer> {
    question().read(bytes)
}

#[test]
fn addresses_come_with_the_shortest_time_of_all_records() {
    let alias = record(5, 30, &[1, b'a', 0xc0, 16]);
    let answer = [
        begin(0x8180, 3),
        alias,
        record(1, 60, &[10, 0, 0, 1]),
        record(1, 90, &[10, 0, 0, 2]),
    ]
    .concat();
    let expected = Resolved {
        addresses: vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])],
        ttl: Duration::from_secs(30),
    };
    assert_eq!(read(&answer), Ok(Answer::Whole(expected)));
}

#[test]
fn a_name_without_addresses_is_an_answer_and_a_failure_is_none() {
    assert_eq!(read(&begin(0x8180, 0)), Ok(Answer::Whole(Resolved::default())));
    assert_eq!(read(&begin(0x8183, 0)), Ok(Answer::Whole(Resolved::default())));
    assert_eq!(read(&begin(0x8182, 0)), Ok(Answer::Refused(2)));
    assert_eq!(read(&begin(0x8380, 0)), Ok(Answer::Truncated));
}

#[test]
fn answers_to_other_questions_and_damaged_ones_are_refused() {
    let mut other = begin(0x8180, 0);
    other[0] = 9;
    assert_eq!(read(&other), Err(MalformedAnswer::NotOurs));
    let mut other = begin(0x8180, 0);
    other[13] = b'x';
    assert_eq!(read(&other), Err(MalformedAnswer::NotOurs));
    assert_eq!(read(&begin(0x8180, 1)), Err(MalformedAnswer::Cut));
    // A name that points at itself.
    let circle = [begin(0x8180, 1), vec![0xc0, 33]].concat();
    assert_eq!(read(&circle), Err(MalformedAnswer::Cut));
    let whole = [begin(0x8180, 1), record(1, 60, &[10, 0, 0, 1])].concat();
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    let mut seed = 7_u32;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let place = (seed >> 8) as usize % bytes.len();
            bytes[place] = (seed >> 24) as u8;
        }
        let _no_panic = read(&bytes);
    }
}

#[test]
fn names_that_cannot_be_asked_for_are_refused() {
    let encodes = |name: &str| {
        let question = Question::new(1, name, Kind::V6);
        question.is_some_and(|question| question.encode(None).is_some())
    };
    assert!(encodes("a.b.") && encodes("a"));
    assert!(!encodes("") && !encodes("a..b") && !encodes(&"a".repeat(64)) && !encodes(&"a.".repeat(130)));
}

#[test]
fn search_domains_are_tried_as_resolv_conf_says() {
    let system = System::parse(
        "nameserver 10.96.0.10\nnameserver bad\nsearch ns.svc.cluster.local svc.cluster.local\noptions ndots:2 timeout:1 attempts:9\n",
        "127.0.0.1 localhost a # b\n::1 localhost\n",
    );
    assert_eq!(system.servers, [SocketAddr::from(([10, 96, 0, 10], 53))]);
    assert_eq!((system.timeout, system.attempts), (Duration::from_secs(1), 5));
    let searched = ["ns.svc.cluster.local", "svc.cluster.local"];
    assert_eq!(
        system.candidates("x"),
        [
            format!("x.{}", searched[0]),
            format!("x.{}", searched[1]),
            "x".to_owned()
        ]
    );
    assert_eq!(system.candidates("x.y.z")[0], "x.y.z");
    assert_eq!(system.candidates("x."), ["x"]);
    let known = |name, kind| system.known(name, kind).map(|known| known.addresses);
    assert_eq!(
        known("LOCALHOST", Kind::V4),
        Some(vec![IpAddr::from([127, 0, 0, 1])])
    );
    assert_eq!(known("a", Kind::V6), Some(vec![]));
    assert_eq!(known("b", Kind::V4), None);
}

#[tokio::test]
async fn a_server_is_asked_and_the_next_one_when_it_fails() {
    let server = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = server.local_addr().expect("bound");
    let failing = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let failing_address = failing.local_addr().expect("bound");
    let answer = async |socket: UdpSocket, flags: u16, record: Option<Vec<u8>>| {
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).await.expect("a question");
        let mut bytes = buffer[..length].to_vec();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&u16::from(record.is_some()).to_be_bytes());
        bytes.extend(record.unwrap_or_default());
        socket.send_to(&bytes, from).await.expect("sent");
    };
    let system = System::parse("options timeout:1 attempts:1", "");
    let manner = Manner {
        servers: vec![failing_address, address],
        ..Manner::default()
    };
    let record = record(1, 60, &[10, 0, 0, 9]);
    let (resolved, (), ()) = tokio::join!(
        resolve(&system, &manner, "x.test", Kind::V4),
        answer(failing, 0x8182, None),
        answer(server, 0x8180, Some(record)),
    );
    assert_eq!(
        resolved.expect("an answer").addresses,
        [IpAddr::from([10, 0, 0, 9])]
    );
}

#[test]
fn a_question_with_edns_says_how_much_it_takes() {
    let plain = question().encode(None).expect("a name");
    let with = question().encode(Some(1232)).expect("a name");
    // One additional record: the root, OPT, the size, no extended code, no flags, no options.
    assert_eq!(with[..10], plain[..10]);
    assert_eq!(with[10..12], [0, 1]);
    assert_eq!(with[plain.len()..], [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
}
