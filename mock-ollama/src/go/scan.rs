//! Where Go's JSON scanner stops, and what it says there.

/// The first JSON value of `text`.
///
/// # Errors
/// Go's text for what stands where it should not.
pub(crate) fn scan(text: &str) -> Result<&str, String> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    let start = scanner.at;
    scanner.value(0)?;
    Ok(&text[start..scanner.at])
}

/// A byte as Go quotes it, which takes it for a character of its own.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0x07 => "'\\a'".to_owned(),
        0x08 => "'\\b'".to_owned(),
        0x0b => "'\\v'".to_owned(),
        0x0c => "'\\f'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        byte => format!("'{}'", char::from(byte)),
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn wrong<T>(&self, looking: &str) -> Result<T, String> {
        match self.peek() {
            None => Err("unexpected EOF".to_owned()),
            Some(byte) => Err(format!("invalid character {} {looking}", quoted(byte))),
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), String> {
        // Go stops at 10,000; a mock may stop where its own parser does.
        if depth > 120 {
            return Err("json: cannot unmarshal: exceeded max depth".to_owned());
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.wrong("looking for beginning of value"),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), String> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return self.wrong("looking for beginning of object key string");
            }
            self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return self.wrong("after object key");
            }
            self.at += 1;
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.wrong("after object key:value pair"),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), String> {
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.space();
            self.value(depth + 1)?;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.wrong("after array element"),
            }
        }
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err("unexpected EOF".to_owned()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                                    return self.wrong("in \\u hexadecimal character escape");
                                }
                                self.at += 1;
                            }
                        }
                        _ => return self.wrong("in string escape code"),
                    }
                }
                Some(byte) if byte < 0x20 => return self.wrong("in string literal"),
                Some(_) => self.at += self.text[self.at..].chars().next().map_or(1, char::len_utf8),
            }
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for (n, expected) in word.bytes().enumerate() {
            if self.peek() != Some(expected) {
                let expected = char::from(word.as_bytes()[n]);
                return self.wrong(&format!("in literal {word} (expecting '{expected}')"));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.wrong("in numeric literal"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return self.wrong("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return self.wrong("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_json_is_reported_in_gos_words() {
        let reported = |text: &str| scan(text).unwrap_err();
        assert_eq!(reported("{\"model\":\"m\""), "unexpected EOF");
        assert_eq!(reported("{bad"), "invalid character 'b' looking for beginning of object key string");
        assert_eq!(reported("hello"), "invalid character 'h' looking for beginning of value");
        assert_eq!(reported("{\"a\":1,}"), "invalid character '}' looking for beginning of object key string");
        assert_eq!(reported("[1 2]"), "invalid character '2' after array element");
        assert_eq!(reported("\u{feff}{}"), "invalid character 'ï' looking for beginning of value");
        assert_eq!(reported("\u{1}"), "invalid character '\\x01' looking for beginning of value");
        assert_eq!(reported("\t[\r'"), "invalid character '\\'' looking for beginning of value");
        assert_eq!(reported("nul!"), "invalid character '!' in literal null (expecting 'l')");
        assert_eq!(scan(" {\"a\":[1,-2.5e3,\"\\u00e9\"]} trailing").unwrap(), "{\"a\":[1,-2.5e3,\"\\u00e9\"]}");
    }
}
