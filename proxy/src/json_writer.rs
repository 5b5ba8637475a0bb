//! Writes JSON: byte for byte what `serde_json` writes, at a fraction of its cost for long texts. It looks for what
//! must be escaped in blocks instead of byte by byte, and into a buffer of the right size. Pure.

use std::fmt::Display;

use bytes::BytesMut;
use serde::{
    Serialize,
    ser::{
        self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

/// A buffer that grows.
pub(crate) trait Buffer {
    fn put(&mut self, bytes: &[u8]);

    fn written(&self) -> &[u8];
}

impl Buffer for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn written(&self) -> &[u8] {
        self
    }
}

impl Buffer for BytesMut {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn written(&self) -> &[u8] {
        self
    }
}

/// Why a value cannot be written: it says so itself, or it has a map whose keys are not texts.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Error(String);

impl ser::Error for Error {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// `value` as JSON, in a buffer for about `size` bytes.
///
/// # Errors
/// As [`append`].
pub(crate) fn to_vec(value: &(impl Serialize + ?Sized), size: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(size);
    append(&mut out, value)?;
    Ok(out)
}

/// Appends `value` to `out`.
///
/// # Errors
/// Fails if the value cannot be serialized, or has a map whose keys are not texts.
pub(crate) fn append(out: &mut impl Buffer, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
    value.serialize(Writer { out, verbatim: false })
}

/// Appends `text` in quotes.
pub(crate) fn text(out: &mut impl Buffer, text: &str) {
    out.put(b"\"");
    escaped(out, text.as_bytes());
    out.put(b"\"");
}

fn escaped(out: &mut impl Buffer, mut bytes: &[u8]) {
    loop {
        let run = run(bytes);
        out.put(&bytes[..run]);
        let Some(byte) = bytes.get(run) else { return };
        escape(out, *byte);
        bytes = &bytes[run + 1..];
    }
}

/// As [`plain`], where what must be escaped may be near.
fn run(bytes: &[u8]) -> usize {
    /// What is not in so many words is taken to be far away.
    const NEAR: usize = 4;
    let words = bytes.as_chunks().0;
    for (nth, word) in words.iter().take(NEAR).enumerate() {
        let run = first_special(word);
        if run < WORD {
            return nth * WORD + run;
        }
    }
    let begin = words.len().min(NEAR) * WORD;
    let rest = &bytes[begin..];
    // The last word may overlap the one before it.
    if rest.len() < WORD && bytes.last_chunk().is_some_and(|last| first_special(last) == WORD) {
        return bytes.len();
    }
    begin + plain(rest)
}

const WORD: usize = size_of::<u64>();

/// How many bytes of `word` stand before the first that must be escaped.
#[inline]
fn first_special(word: &[u8; WORD]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    let bytes = u64::from_le_bytes(*word);
    // The highest bit of the first byte that is less than a space, or a quote, or a backslash. Those behind it may be
    // wrong. Bytes that have it themselves are none of these.
    let [quotes, backslashes] = [b'"', b'\\'].map(|byte| (bytes ^ (ONES * u64::from(byte))).wrapping_sub(ONES));
    let special = (bytes.wrapping_sub(ONES * 0x20) | quotes | backslashes) & !bytes & (ONES * 0x80);
    special.trailing_zeros() as usize / 8
}

/// Where the first byte stands that must be escaped, if there is one. For text in which that is soon.
pub(crate) fn special(bytes: &[u8]) -> Option<usize> {
    let (mut begin, mut rest) = (0, bytes);
    while let Some((word, behind)) = rest.split_first_chunk() {
        let run = first_special(word);
        begin += run;
        if run < WORD {
            return Some(begin);
        }
        rest = behind;
    }
    rest.iter().position(|byte| SPECIAL[usize::from(*byte)]).map(|run| begin + run)
}

/// How many bytes stand before the first that must be escaped: a quote, a backslash or a control character.
pub(crate) fn plain(bytes: &[u8]) -> usize {
    const LARGE: usize = 32;
    let mut begin = 0;
    match bytes.len() {
        // Names of fields, mostly.
        8..=16 if ends_are_plain::<8>(bytes) => return bytes.len(),
        17..LARGE if ends_are_plain::<16>(bytes) => return bytes.len(),
        LARGE.. => {
            begin = bytes.as_chunks::<LARGE>().0.iter().take_while(|block| is_plain(block)).count() * LARGE;
            if bytes.len() - begin < LARGE && bytes.last_chunk::<LARGE>().is_some_and(is_plain) {
                return bytes.len();
            }
        }
        _ => {}
    }
    while let Some(run) = bytes[begin..].first_chunk().map(first_special) {
        begin += run;
        if run < WORD {
            return begin;
        }
    }
    let rest = &bytes[begin..];
    begin + rest.iter().position(|byte| SPECIAL[usize::from(*byte)]).unwrap_or(rest.len())
}

/// Whether nothing must be escaped in the first and in the last `N` bytes, which may overlap.
fn ends_are_plain<const N: usize>(bytes: &[u8]) -> bool {
    bytes.first_chunk::<N>().is_some_and(is_plain) && bytes.last_chunk::<N>().is_some_and(is_plain)
}

/// Whether nothing must be escaped in a block. Without a branch for each byte, so that the compiler looks at many bytes
/// at once.
fn is_plain<const N: usize>(block: &[u8; N]) -> bool {
    let special = |byte: u8| u8::from(byte < 0x20) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    block.iter().fold(0, |found, byte| found | special(*byte)) == 0
}

/// The bytes that must be escaped.
static SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        special[byte] = true;
        byte += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

fn escape(out: &mut impl Buffer, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            let [high, low] = [byte >> 4, byte & 0xf].map(|digit| HEX[usize::from(digit)]);
            return out.put(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.put(&[b'\\', short]);
}

/// The name under which `serde_json` serializes a `RawValue`.
const RAW: &str = "$serde_json::private::RawValue";

struct Writer<'a, B> {
    out: &'a mut B,
    /// A text is JSON already.
    verbatim: bool,
}

impl<'a, B: Buffer> Writer<'a, B> {
    fn open(self, open: &[u8], close: &'static [u8]) -> Compound<'a, B> {
        self.out.put(open);
        Compound { out: self.out, first: true, close, verbatim: false }
    }

    /// Opens the object of one name that a variant with values is.
    fn variant(self, name: &str, open: &[u8], close: &'static [u8]) -> Compound<'a, B> {
        self.out.put(b"{");
        text(self.out, name);
        self.out.put(b":");
        self.open(open, close)
    }

    fn number(self, number: impl itoa::Integer) {
        self.out.put(itoa::Buffer::new().format(number).as_bytes());
    }

    fn float(self, value: impl zmij::Float, is_finite: bool) {
        let mut buffer = zmij::Buffer::new();
        self.out.put(if is_finite { buffer.format_finite(value) } else { "null" }.as_bytes());
    }
}

macro_rules! numbers {
    ($($name:ident $kind:ty),*) => {
        $(fn $name(self, value: $kind) -> Result<(), Error> {
            self.number(value);
            Ok(())
        })*
    };
}

impl<'a, B: Buffer> ser::Serializer for Writer<'a, B> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'a, B>;
    type SerializeTuple = Compound<'a, B>;
    type SerializeTupleStruct = Compound<'a, B>;
    type SerializeTupleVariant = Compound<'a, B>;
    type SerializeMap = Compound<'a, B>;
    type SerializeStruct = Compound<'a, B>;
    type SerializeStructVariant = Compound<'a, B>;

    numbers!(
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128
    );

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.put(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.float(value, value.is_finite());
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.float(value, value.is_finite());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        if self.verbatim {
            self.out.put(value.as_bytes());
        } else {
            text(self.out, value);
        }
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.put(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let compound = self.variant(variant, b"", b"}");
        value.serialize(Writer { out: compound.out, verbatim: false })?;
        compound.out.put(b"}");
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a, B>, Error> {
        Ok(self.open(b"[", b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Compound<'a, B>, Error> {
        Ok(self.open(b"[", b"]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Compound<'a, B>, Error> {
        Ok(self.open(b"[", b"]"))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, B>, Error> {
        Ok(self.variant(variant, b"[", b"]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a, B>, Error> {
        Ok(self.open(b"{", b"}"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Compound<'a, B>, Error> {
        if name == RAW {
            return Ok(Compound { verbatim: true, ..self.open(b"", b"") });
        }
        Ok(self.open(b"{", b"}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, B>, Error> {
        Ok(self.variant(variant, b"{", b"}}"))
    }
}

/// An object or a list that is being written.
struct Compound<'a, B> {
    out: &'a mut B,
    first: bool,
    close: &'static [u8],
    /// Its only field is JSON already.
    verbatim: bool,
}

impl<B: Buffer> Compound<'_, B> {
    fn comma(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.out.put(b",");
        }
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Writer { out: &mut *self.out, verbatim: self.verbatim })
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.comma();
        self.value(value)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        if !self.verbatim {
            self.out.put(if self.first { b"\"" } else { b",\"" });
            self.first = false;
            escaped(self.out, name.as_bytes());
            self.out.put(b"\":");
        }
        self.value(value)
    }

    fn close(self) {
        self.out.put(self.close);
    }
}

macro_rules! elements {
    ($($kind:ident $method:ident),*) => {
        $(impl<B: Buffer> $kind for Compound<'_, B> {
            type Ok = ();
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }

            fn end(self) -> Result<(), Error> {
                self.close();
                Ok(())
            }
        })*
    };
}

elements!(SerializeSeq serialize_element, SerializeTuple serialize_element);
elements!(SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! fields {
    ($($kind:ident),*) => {
        $(impl<B: Buffer> $kind for Compound<'_, B> {
            type Ok = ();
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Error> {
                self.close();
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl<B: Buffer> SerializeMap for Compound<'_, B> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.comma();
        let begin = self.out.written().len();
        append(&mut *self.out, key)?;
        if self.out.written().get(begin) != Some(&b'"') {
            return Err(ser::Error::custom("the key of an object must be a text"));
        }
        self.out.put(b":");
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, collections::BTreeMap};

    use proptest::prelude::*;
    use serde_json::{Value, value::RawValue};

    use super::*;

    /// A value of every kind that serde knows.
    #[derive(Clone, Debug, Serialize)]
    enum Kind {
        Unit,
        Newtype(Option<Box<Kind>>),
        Tuple(u8, i64),
        Struct {
            a: char,
            #[serde(skip_serializing_if = "Option::is_none")]
            b: Option<bool>,
        },
    }

    #[derive(Debug, Serialize)]
    struct Everything<'a> {
        texts: Vec<Cow<'a, str>>,
        raw: &'a RawValue,
        boxed: Option<Box<RawValue>>,
        #[serde(rename = "odd\"name")]
        pair: (u16, f32),
        float: f64,
        floats: [f32; 4],
        large: u128,
        unit: (),
        kinds: Vec<Kind>,
        map: BTreeMap<String, Value>,
        empty: [u8; 0],
        #[serde(flatten)]
        flat: Flat,
    }

    #[derive(Debug, Serialize)]
    struct Flat {
        signed: i128,
        #[serde(with = "serde_bytes_like")]
        bytes: Vec<u8>,
    }

    mod serde_bytes_like {
        pub(super) fn serialize<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(bytes)
        }
    }

    fn written(value: &impl Serialize) -> String {
        let vec = to_vec(value, 0).unwrap();
        let mut bytes = BytesMut::new();
        append(&mut bytes, value).unwrap();
        assert_eq!(vec, bytes);
        String::from_utf8(vec).unwrap()
    }

    #[test]
    fn every_byte_is_escaped_as_serde_json_does() {
        for c in (0..0x300).filter_map(char::from_u32) {
            for (before, after) in
                [(0, 0), (1, 20), (6, 0), (7, 0), (8, 2), (15, 0), (16, 20), (17, 9), (31, 0), (32, 1), (40, 33)]
            {
                let text = format!("{}{c}{}", "x".repeat(before), "y".repeat(after));
                assert_eq!(written(&text), serde_json::to_string(&text).unwrap());
            }
        }
    }

    #[test]
    fn the_first_special_byte_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for (before, after) in [(0, 0), (1, 3), (7, 0), (8, 1), (9, 20), (40, 0)] {
                let text = [&vec![b'x'; before][..], &[byte], &vec![0xff; after], b"\""].concat();
                let first = if SPECIAL[usize::from(byte)] { before } else { text.len() - 1 };
                assert_eq!((special(&text), plain(&text)), (Some(first), first), "{byte} after {before}");
            }
        }
        assert_eq!((special(b""), special(b"abcdefghijk")), (None, None));
    }

    #[test]
    fn a_map_without_texts_for_keys_is_an_error() {
        assert!(to_vec(&BTreeMap::from([(vec![1], 2)]), 0).is_err());
    }

    fn kind() -> impl Strategy<Value = Kind> {
        let leaf = prop_oneof![
            Just(Kind::Unit),
            any::<(u8, i64)>().prop_map(|(a, b)| Kind::Tuple(a, b)),
            any::<(char, Option<bool>)>().prop_map(|(a, b)| Kind::Struct { a, b }),
        ];
        leaf.prop_recursive(3, 8, 1, |inner| prop::option::of(inner.prop_map(Box::new)).prop_map(Kind::Newtype))
    }

    proptest! {
        #[test]
        fn everything_is_written_as_serde_json_does(
            texts in prop::collection::vec(".{0,40}", 0..4),
            raw in "\\[[1-9][0-9]{0,9}, \"[a-z]{0,20}\" \\]",
            (pair, float, floats, large, signed) in any::<((u16, f32), f64, [f32; 4], u128, i128)>(),
            kinds in prop::collection::vec(kind(), 0..4),
            map in prop::collection::btree_map(".{0,9}", any::<Option<i64>>(), 0..4),
            bytes in any::<Vec<u8>>(),
        ) {
            let raw: Box<RawValue> = serde_json::from_str(&raw).unwrap();
            let map = map.into_iter().map(|(key, value)| (key, value.into())).collect();
            let texts = texts.into_iter().map(Cow::Owned).collect();
            let flat = Flat { signed, bytes };
            // A flattened struct is written through a buffer that knows no larger numbers.
            let flat = Flat { signed: flat.signed >> 64, ..flat };
            let value = Everything {
                texts, raw: &raw, boxed: Some(raw.clone()), pair, float, floats, large, unit: (), kinds, map, empty: [], flat,
            };
            prop_assert_eq!(written(&value), serde_json::to_string(&value).unwrap());
        }
    }
}
