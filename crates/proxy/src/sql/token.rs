//! Words, names, strings and signs.
//!
//! **Invariant:** a string, a comment or a quoted name ends where PostgreSQL says that it ends, so
//! that what is within is never taken for SQL; one without an end is said to be unfinished.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A name in double quotes behind `U&`, whose escapes are not read.
    Unicode,
    /// A string in single quotes without escapes, and in one part.
    Plain,
    /// A string of any other form.
    Fancy,
    Number,
    /// `$1`.
    Parameter,
    Sign(u8),
}

/// No name that PostgreSQL knows is longer.
pub(super) const NAME_MAX: usize = 64;

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) at: usize,
    pub(super) text: &'t [u8],
}

impl Token<'_> {
    /// Whether it is this keyword, in any case.
    pub(super) fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word.as_bytes())
    }

    pub(super) fn is_name(&self) -> bool {
        matches!(self.kind, Kind::Word | Kind::Quoted | Kind::Unicode)
    }

    pub(super) fn is_sign(&self, sign: u8) -> bool {
        self.kind == Kind::Sign(sign)
    }

    /// The name that it is, as PostgreSQL folds it.
    pub(super) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(String::from_utf8_lossy(self.text).to_ascii_lowercase()),
            Kind::Quoted => {
                let inner = &self.text[1..self.text.len() - 1];
                Some(String::from_utf8_lossy(inner).replace("\"\"", "\""))
            }
            _ => None,
        }
    }

    /// The same without an allocation, to be compared with names of ASCII letters: what is longer than
    /// `room`, or of other letters, is none of them.
    pub(super) fn folded<'r>(&self, room: &'r mut [u8; NAME_MAX]) -> Option<&'r str> {
        let inner = match self.kind {
            Kind::Word => self.text,
            Kind::Quoted => &self.text[1..self.text.len() - 1],
            _ => return None,
        };
        let room = room.get_mut(..inner.len())?;
        room.copy_from_slice(inner);
        if self.kind == Kind::Word {
            room.make_ascii_lowercase();
        }
        str::from_utf8(room).ok()
    }

    /// The text that it is, if it is a string without escapes.
    pub(super) fn string(&self) -> Option<Vec<u8>> {
        if self.kind != Kind::Plain {
            return None;
        }
        let inner = &self.text[1..self.text.len() - 1];
        let mut out = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(byte) = bytes.next() {
            out.push(*byte);
            if *byte == b'\'' {
                bytes.next();
            }
        }
        Some(out)
    }
}

/// Cuts a text.
#[derive(Debug)]
pub(super) struct Tokens<'t> {
    text: &'t [u8],
    at: usize,
    standard: bool,
    unfinished: bool,
}

impl<'t> Tokens<'t> {
    pub(super) fn new(text: &'t [u8], standard: bool) -> Self {
        Self {
            text,
            at: 0,
            standard,
            unfinished: false,
        }
    }

    /// Whether the last thing has no end.
    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blanks(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.at += 1,
                b'-' if self.peek(1) == b'-' => self.at += line(&self.text[self.at..]),
                b'/' if self.peek(1) == b'*' => self.comment(),
                _ => return,
            }
        }
    }

    /// They nest.
    fn comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.at += 1,
            }
        }
        self.unfinished = true;
    }

    /// Behind the end of the string whose first quote is at `at`. It goes on in the next quotes if only blanks with a line
    /// break are between: in the same form, with escapes or without.
    fn whole_string(&mut self, escapes: bool) {
        self.quoted(b'\'', escapes);
        while let Some(at) = self.continuation() {
            self.at = at;
            self.quoted(b'\'', escapes);
        }
    }

    /// Where the string that has ended here goes on.
    fn continuation(&self) -> Option<usize> {
        let mut at = self.at;
        let mut is_broken = false;
        loop {
            let rest = self.text.get(at..)?;
            match rest {
                [b'\'', ..] if is_broken => return Some(at),
                [b'\n' | b'\r', ..] => {
                    is_broken = true;
                    at += 1;
                }
                [b' ' | b'\t' | 0x0b | 0x0c, ..] => at += 1,
                [b'-', b'-', ..] => at += line(rest),
                _ => return None,
            }
        }
    }

    /// Behind the quote that ends what the quote at `at` began.
    fn quoted(&mut self, quote: u8, escapes: bool) {
        self.at += 1;
        while self.at < self.text.len() {
            let byte = self.peek(0);
            let escaped = byte == b'\\' && escapes;
            if escaped || (byte == quote && self.peek(1) == quote) {
                self.at += 2;
            } else if byte == quote {
                self.at += 1;
                return;
            } else {
                self.at += 1;
            }
        }
        self.at = self.text.len();
        self.unfinished = true;
    }

    fn dollar(&mut self) -> Kind {
        let rest = &self.text[self.at + 1..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            self.at += 1 + digits;
            return Kind::Parameter;
        }
        let tag = rest
            .iter()
            .take_while(|byte| is_name(**byte) && **byte != b'$');
        let tag = tag.count();
        if rest.get(tag) != Some(&b'$') {
            self.at += 1;
            return Kind::Sign(b'$');
        }
        let fence = &self.text[self.at..self.at + tag + 2];
        let body = self.at + fence.len();
        let end = self.text[body..]
            .windows(fence.len())
            .position(|window| window == fence);
        match end {
            Some(end) => self.at = body + end + fence.len(),
            None => {
                self.at = self.text.len();
                self.unfinished = true;
            }
        }
        Kind::Fancy
    }

    fn word(&mut self) -> Kind {
        let rest = &self.text[self.at..];
        let length = rest.iter().take_while(|byte| is_name(**byte)).count();
        // A letter alone may be the first of a string, and only of one.
        if length == 1 && matches!(rest.get(1), Some(b'\'' | b'&')) {
            let first = rest[0].to_ascii_lowercase();
            let next = self.peek(1);
            if matches!(first, b'e' | b'b' | b'x' | b'n') && next == b'\'' {
                self.at += 1;
                self.whole_string(first == b'e' || (first == b'n' && !self.standard));
                return Kind::Fancy;
            }
            if first == b'u' && next == b'&' && matches!(self.peek(2), b'\'' | b'"') {
                self.at += 2;
                if self.peek(0) == b'\'' {
                    self.whole_string(false);
                    return Kind::Fancy;
                }
                self.quoted(b'"', false);
                return Kind::Unicode;
            }
        }
        self.at += length;
        Kind::Word
    }
}

/// How long the line is that begins here, without its end.
fn line(rest: &[u8]) -> usize {
    let line = rest.iter();
    line.take_while(|byte| !matches!(byte, b'\n' | b'\r'))
        .count()
}

/// What a name without quotes goes on with. Bytes of any encoding beyond ASCII are letters.
pub(super) fn is_name(byte: u8) -> bool {
    const IS_NAME: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0_u8;
        loop {
            table[byte as usize] =
                byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80;
            if byte == u8::MAX {
                break table;
            }
            byte += 1;
        }
    };
    IS_NAME[usize::from(byte)]
}

impl<'t> Iterator for Tokens<'t> {
    type Item = Token<'t>;

    #[inline]
    fn next(&mut self) -> Option<Token<'t>> {
        self.skip_blanks();
        if self.at >= self.text.len() {
            return None;
        }
        let at = self.at;
        let byte = self.peek(0);
        let kind = match byte {
            b'\'' => {
                self.quoted(b'\'', !self.standard);
                let first = self.at;
                let plain = self.standard || !self.text[at..first].contains(&b'\\');
                if let Some(more) = self.continuation() {
                    self.at = more;
                    self.whole_string(!self.standard);
                }
                if plain && first == self.at && !self.unfinished {
                    Kind::Plain
                } else {
                    Kind::Fancy
                }
            }
            b'"' => {
                self.quoted(b'"', false);
                match self.unfinished {
                    true => Kind::Fancy,
                    false => Kind::Quoted,
                }
            }
            b'$' => self.dollar(),
            b'0'..=b'9' => {
                let rest = self.text[at..].iter();
                self.at += rest
                    .take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'.')
                    .count();
                Kind::Number
            }
            byte if is_name(byte) => self.word(),
            sign => {
                self.at += 1;
                Kind::Sign(sign)
            }
        };
        Some(Token {
            kind,
            at,
            text: &self.text[at..self.at],
        })
    }
}
