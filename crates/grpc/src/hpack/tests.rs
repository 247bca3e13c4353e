//! RFC 7541's own examples (appendix C), and round trips.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::decode::Decoder;
use super::encode::Encoder;
use super::huffman::CODES;
use super::table::STATIC;
use super::*;

fn unhex(hex: &str) -> Vec<u8> {
    let hex: String = hex.split_whitespace().collect();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn decode(d: &mut Decoder, block: &[u8]) -> Result<Vec<String>, HpackError> {
    let mut fields = Vec::new();
    d.decode(block, &mut |f| {
        fields.push(format!(
            "{}: {}",
            String::from_utf8_lossy(f.name_bytes),
            String::from_utf8_lossy(f.value)
        ));
    })?;
    Ok(fields)
}

#[test]
fn integers_of_c1_and_limits() {
    for (value, prefix, bytes) in [(10, 5, &[10][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42])] {
        let mut out = Vec::new();
        put_int(&mut out, 0, prefix, value);
        assert_eq!(out, bytes);
        assert_eq!(get_int(&mut &out[..], prefix), Ok(value));
    }
    assert_eq!(get_int(&mut &[0x7f][..], 7), Err(HpackError));
    assert_eq!(get_int(&mut &[0x7f, 0xff, 0xff, 0xff, 0xff, 0x01][..], 7), Err(HpackError));
}

#[test]
fn literals_of_c2() {
    let mut d = Decoder::new();
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    assert_eq!(decode(&mut d, &unhex(custom)).unwrap(), ["custom-key: custom-header"]);
    assert_eq!((d.table().len(), d.table().size()), (1, 55));
    let mut d = Decoder::new();
    assert_eq!(
        decode(&mut d, &unhex("040c 2f73 616d 706c 652f 7061 7468")).unwrap(),
        [":path: /sample/path"]
    );
    assert_eq!(
        decode(&mut d, &unhex("1008 7061 7373 776f 7264 0673 6563 7265 74")).unwrap(),
        ["password: secret"]
    );
    assert_eq!(decode(&mut d, &unhex("82")).unwrap(), [":method: GET"]);
    assert_eq!(d.table().len(), 0);
}

/// C.3 and C.4: the same three requests, plain and Huffman coded.
#[test]
fn requests_of_c3_and_c4() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let huffman = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    for blocks in [plain, huffman] {
        let mut d = Decoder::new();
        let common = [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
        assert_eq!(decode(&mut d, &unhex(blocks[0])).unwrap(), common);
        assert_eq!((d.table().len(), d.table().size()), (1, 57));
        let second = decode(&mut d, &unhex(blocks[1])).unwrap();
        assert_eq!(
            (&second[..4], &second[4][..]),
            (&common.map(String::from)[..], "cache-control: no-cache")
        );
        assert_eq!((d.table().len(), d.table().size()), (2, 110));
        assert_eq!(
            decode(&mut d, &unhex(blocks[2])).unwrap(),
            [
                ":method: GET",
                ":scheme: https",
                ":path: /index.html",
                ":authority: www.example.com",
                "custom-key: custom-value"
            ]
        );
        assert_eq!((d.table().len(), d.table().size()), (3, 164));
    }
}

/// C.5 and C.6: responses in a table of 256 bytes, so that entries are evicted.
#[test]
fn responses_of_c5_and_c6() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b
         2076 6572 7369 6f6e 3d31",
    ];
    let huffman = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ];
    for blocks in [plain, huffman] {
        let mut d = Decoder::new();
        decode(&mut d, &[0x3f, 0xe1, 0x01]).unwrap();
        let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
        let location = "location: https://www.example.com";
        assert_eq!(
            decode(&mut d, &unhex(blocks[0])).unwrap(),
            [":status: 302", "cache-control: private", date, location]
        );
        assert_eq!((d.table().len(), d.table().size()), (4, 222));
        assert_eq!(
            decode(&mut d, &unhex(blocks[1])).unwrap(),
            [":status: 307", "cache-control: private", date, location]
        );
        assert_eq!((d.table().len(), d.table().size()), (4, 222));
        assert_eq!(
            decode(&mut d, &unhex(blocks[2])).unwrap(),
            [
                ":status: 200",
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:22 GMT",
                location,
                "content-encoding: gzip",
                "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
            ]
        );
        assert_eq!((d.table().len(), d.table().size()), (3, 215));
    }
}

#[test]
fn what_a_decoder_must_refuse() {
    for bad in [
        "80",             // index 0
        "be",             // nothing in the dynamic table
        "ffffffffffff0f", // integer out of range
        "4005 6162",      // string longer than the block
        "823f e11f",      // size update after a field
        "3fe2 1f",        // size above the allowed one
        "0084 ffff ffff", // Huffman: end-of-string symbol
        "0081 1c00",      // name ends with zero bits for padding
        "0082 1fff 00",   // name padded by more than seven bits
    ] {
        assert_eq!(decode(&mut Decoder::new(), &unhex(bad)), Err(HpackError), "{bad}");
    }
}

#[test]
fn entries_larger_than_the_table_empty_it() {
    let mut d = Decoder::new();
    decode(&mut d, &unhex("4003 6162 6303 6162 63")).unwrap();
    assert_eq!(d.table().len(), 1);
    let mut big = vec![0x40, 1, b'x', 0x7f, 0x80 | 1, 40];
    big.extend_from_slice(&vec![b'y'; 127 + 1 + (40 << 7)]);
    assert_eq!(decode(&mut d, &big).unwrap().len(), 1);
    assert_eq!((d.table().len(), d.table().size()), (0, 0));
}

#[test]
fn the_encoder_warms_up_and_follows_the_peers_table() {
    let (mut e, mut d) = (Encoder::new(), Decoder::new());
    let reply = |e: &mut Encoder, d: &mut Decoder| {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        e.begin(&mut head);
        e.grpc_head(&mut head);
        e.begin(&mut tail);
        e.status_ok(&mut tail);
        assert_eq!(decode(d, &head).unwrap(), [":status: 200", "content-type: application/grpc"]);
        assert_eq!(decode(d, &tail).unwrap(), ["grpc-status: 0"]);
        (head, tail)
    };
    reply(&mut e, &mut d);
    assert_eq!(reply(&mut e, &mut d), (vec![0x88, 0xbf], vec![0xbe]));
    // A larger table changes nothing, a smaller one that still fits is announced.
    e.peer_table_size(65_536);
    assert!(e.is_warm());
    e.peer_table_size(200);
    assert_eq!(reply(&mut e, &mut d).0, [0x3f, 0xa9, 0x01, 0x88, 0xbf]);
    assert_eq!(reply(&mut e, &mut d), (vec![0x88, 0xbf], vec![0xbe]));
    // Down to nothing and up again before the next block: both sizes are announced, the entries are gone.
    e.peer_table_size(10);
    e.peer_table_size(4096);
    assert_eq!(&reply(&mut e, &mut d).0[..4], [0x20, 0x3f, 0xe1, 0x1f]);
    assert_eq!(reply(&mut e, &mut d), (vec![0x88, 0xbf], vec![0xbe]));
    e.peer_table_size(0);
    reply(&mut e, &mut d);
    let (head, tail) = reply(&mut e, &mut d);
    assert_eq!((head.len(), tail.len(), d.table().len()), (20, 15, 0));
}

fn huffman_encode(s: &[u8]) -> Vec<u8> {
    let (mut out, mut bits, mut n) = (Vec::new(), 0u64, 0);
    for &b in s {
        let (code, len) = CODES[usize::from(b)];
        bits = bits << len | u64::from(code);
        n += u32::from(len);
        while n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    if n > 0 {
        out.push((bits << (8 - n)) as u8 | (0xff >> n));
    }
    out
}

/// One field of a generated block: how it is written, and what it says.
#[derive(Clone, Debug)]
enum Step {
    Literal { keep: bool, huffman: bool, name: Vec<u8>, value: Vec<u8> },
    NamedBy { keep: bool, index: usize, value: Vec<u8> },
    Indexed(usize),
    Resize(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = proptest::collection::vec(prop_oneof![b'a'..=b'z', Just(b'-')], 1..12);
    let value = proptest::collection::vec(0x20..0x7fu8, 0..200);
    let step = prop_oneof![
        4 => (any::<bool>(), any::<bool>(), name, value.clone())
            .prop_map(|(keep, huffman, name, value)| Step::Literal { keep, huffman, name, value }),
        2 => (any::<bool>(), 0..200usize, value).prop_map(|(keep, index, value)| Step::NamedBy { keep, index, value }),
        4 => (0..200usize).prop_map(Step::Indexed),
        1 => prop_oneof![Just(0usize), 0..4097usize, Just(4096)].prop_map(Step::Resize),
    ];
    proptest::collection::vec(step, 0..300)
}

/// The dumb model of a dynamic table: a list of pairs, newest first.
#[derive(Default)]
struct Model {
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    max: usize,
}

impl Model {
    fn size(&self) -> usize {
        self.entries.iter().map(|(n, v)| n.len() + v.len() + 32).sum()
    }

    fn get(&self, index: usize) -> (Vec<u8>, Vec<u8>) {
        match STATIC.get(index - 1) {
            Some(e) => (e.name_bytes.to_vec(), e.value.to_vec()),
            None => self.entries[index - 62].clone(),
        }
    }

    fn insert(&mut self, field: (Vec<u8>, Vec<u8>)) {
        self.entries.push_front(field);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.size() > self.max {
            self.entries.pop_back();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn huffman_round_trip(s in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut out = Vec::new();
        huffman::decode(&huffman_encode(&s), &mut out).unwrap();
        prop_assert_eq!(out, s);
    }

    #[test]
    fn hostile_blocks_never_panic(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..10)) {
        let mut d = Decoder::new();
        for b in blocks {
            if decode(&mut d, &b).is_err() {
                break;
            }
        }
    }

    /// Every way of writing a field, against a list of pairs.
    #[test]
    fn the_table_agrees_with_a_list(steps in steps()) {
        let mut d = Decoder::new();
        let mut model = Model { max: 4096, ..Model::default() };
        for step in steps {
            let mut block = Vec::new();
            let mut expected = Vec::new();
            match step {
                Step::Resize(n) => {
                    put_int(&mut block, 0x20, 5, n);
                    model.max = n;
                    model.shrink();
                }
                Step::Indexed(i) => {
                    let i = 1 + i % (61 + model.entries.len());
                    put_int(&mut block, 0x80, 7, i);
                    expected.push(model.get(i));
                }
                Step::NamedBy { keep, index, value } => {
                    let i = 1 + index % (61 + model.entries.len());
                    put_int(&mut block, if keep { 0x40 } else { 0x10 }, if keep { 6 } else { 4 }, i);
                    put_int(&mut block, 0, 7, value.len());
                    block.extend_from_slice(&value);
                    let field = (model.get(i).0, value);
                    expected.push(field.clone());
                    if keep {
                        model.insert(field);
                    }
                }
                Step::Literal { keep, huffman, name, value } => {
                    block.push(if keep { 0x40 } else { 0 });
                    for s in [&name, &value] {
                        let coded = if huffman { huffman_encode(s) } else { s.clone() };
                        put_int(&mut block, if huffman { 0x80 } else { 0 }, 7, coded.len());
                        block.extend_from_slice(&coded);
                    }
                    expected.push((name.clone(), value.clone()));
                    if keep {
                        model.insert((name, value));
                    }
                }
            }
            let mut got = Vec::new();
            d.decode(&block, &mut |f| got.push((f.name_bytes.to_vec(), f.value.to_vec()))).unwrap();
            prop_assert_eq!(got, expected);
            prop_assert_eq!((d.table().len(), d.table().size()), (model.entries.len(), model.size()));
        }
    }
}
