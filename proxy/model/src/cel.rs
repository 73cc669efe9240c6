//! The syntax of CEL expressions: whether a text is one. Evaluates nothing, and knows neither variables nor functions.
//! Source: cel-spec, "Syntax"; limits as in cel-cpp's parser, which Envoy uses.
mod token;

use self::token::{Lexer, Token};

/// Deepest nesting (cel-cpp `ParserOptions::max_recursion_depth`).
const MAX_DEPTH: usize = 250;
/// Longest expression in bytes (cel-cpp `ParserOptions::expression_size_codepoint_limit`, in codepoints there).
const MAX_BYTES: usize = 100_000;

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {reason}")]
pub(crate) struct SyntaxError {
    /// Bytes before it, and one.
    column: usize,
    reason: String,
}

/// Checks that `text` is an expression. O(length).
///
/// # Errors
/// Where it is none.
pub(crate) fn check(text: &str) -> Result<(), SyntaxError> {
    if text.len() > MAX_BYTES {
        let reason = format!("has {} bytes; at most {MAX_BYTES}", text.len());
        return Err(SyntaxError { column: 1, reason });
    }
    let mut parser = Parser::new(text)?;
    parser.expression()?;
    match parser.token {
        Token::End => Ok(()),
        _ => Err(parser.unexpected("the end, or an operator")),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The one to look at, and where it begins.
    token: Token<'a>,
    start: usize,
    depth: usize,
}

/// Between what they stand they are all alike to a check of syntax; `?:` and the unary ones are not here.
const BINARY: [&str; 14] = [
    "||", "&&", "<", "<=", ">=", ">", "==", "!=", "in", "+", "-", "*", "/", "%",
];

/// Names that no variable may have. Source: cel-spec, "RESERVED".
const RESERVED: [&str; 19] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "var",
    "void",
    "while",
    "await",
];

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, SyntaxError> {
        let mut lexer = Lexer::new(text);
        let (start, token) = lexer.next()?;
        Ok(Self {
            lexer,
            token,
            start,
            depth: 0,
        })
    }

    fn advance(&mut self) -> Result<(), SyntaxError> {
        (self.start, self.token) = self.lexer.next()?;
        Ok(())
    }

    fn unexpected(&self, wanted: &str) -> SyntaxError {
        SyntaxError {
            column: self.start + 1,
            reason: format!("{wanted} is expected, not {}", self.token),
        }
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.token, Token::Symbol(found) if found == symbol)
    }

    /// Goes past the symbol if it is there.
    fn accept(&mut self, symbol: &str) -> Result<bool, SyntaxError> {
        let is_there = self.is(symbol);
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    fn expect(&mut self, symbol: &str) -> Result<(), SyntaxError> {
        match self.accept(symbol)? {
            true => Ok(()),
            false => Err(self.unexpected(&format!("{symbol:?}"))),
        }
    }

    fn expression(&mut self) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError {
                column: self.start + 1,
                reason: format!("is nested more than {MAX_DEPTH} deep"),
            });
        }
        self.binary()?;
        if self.accept("?")? {
            self.binary()?;
            self.expect(":")?;
            self.expression()?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn binary(&mut self) -> Result<(), SyntaxError> {
        self.unary()?;
        loop {
            let is_operator = match self.token {
                Token::Symbol(symbol) | Token::Name(symbol) => BINARY.contains(&symbol),
                _ => false,
            };
            if !is_operator {
                return Ok(());
            }
            self.advance()?;
            self.unary()?;
        }
    }

    fn unary(&mut self) -> Result<(), SyntaxError> {
        let sign = ["!", "-"].into_iter().find(|sign| self.is(sign));
        if let Some(sign) = sign {
            // Of one kind: `!-a` is none.
            while self.accept(sign)? {}
        }
        self.primary()?;
        self.members()
    }

    fn members(&mut self) -> Result<(), SyntaxError> {
        loop {
            if self.accept(".")? {
                match self.token {
                    Token::Name(_) => self.advance()?,
                    _ => return Err(self.unexpected("a field")),
                }
                self.arguments()?;
            } else if self.accept("[")? {
                self.expression()?;
                self.expect("]")?;
            } else if self.is("{") {
                self.fields()?;
            } else {
                return Ok(());
            }
        }
    }

    fn primary(&mut self) -> Result<(), SyntaxError> {
        let from_root = self.accept(".")?;
        match self.token {
            Token::Name(name) if RESERVED.contains(&name) => {
                let reason = format!("{name:?} is a reserved word");
                Err(SyntaxError {
                    column: self.start + 1,
                    reason,
                })
            }
            Token::Name(_) => {
                self.advance()?;
                self.arguments()
            }
            _ if from_root => Err(self.unexpected("a name")),
            Token::Literal => self.advance(),
            Token::Symbol("(") => {
                self.advance()?;
                self.expression()?;
                self.expect(")")
            }
            Token::Symbol("[") => {
                self.advance()?;
                self.list("]", Self::expression)
            }
            Token::Symbol("{") => {
                self.advance()?;
                self.list("}", Self::entry)
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    /// The arguments of a call, if it is one.
    fn arguments(&mut self) -> Result<(), SyntaxError> {
        if !self.accept("(")? || self.accept(")")? {
            return Ok(());
        }
        self.expression()?;
        while self.accept(",")? {
            self.expression()?;
        }
        self.expect(")")
    }

    /// A message: `Name{field: value}`.
    fn fields(&mut self) -> Result<(), SyntaxError> {
        self.expect("{")?;
        self.list("}", |parser| {
            match parser.token {
                Token::Name(_) => parser.advance()?,
                _ => return Err(parser.unexpected("a field")),
            }
            parser.expect(":")?;
            parser.expression()
        })
    }

    fn entry(&mut self) -> Result<(), SyntaxError> {
        self.expression()?;
        self.expect(":")?;
        self.expression()
    }

    /// Items up to `end`; a comma may follow the last.
    fn list(
        &mut self,
        end: &str,
        item: impl Fn(&mut Self) -> Result<(), SyntaxError>,
    ) -> Result<(), SyntaxError> {
        while !self.accept(end)? {
            item(self)?;
            if !self.accept(",")? {
                return self.expect(end);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_istio_and_its_users_write_is_an_expression() {
        for good in [
            "response.code >= 400",
            "response.code >= 500 || connection.mtls && request.url_path.contains('v1beta3')",
            "has(request.headers['x']) ? size(request.headers) > 1u : false",
            "!('a' in {'a': 1, 'b': [1, 2.5e3, 0x1F,]})",
            r#""x" + r'\d' + """three "quotes" here""" == b'\x41' + '\u00e9\n'"#,
            "--a - -b * (c % 2) // a comment",
            ".google.protobuf.Duration{seconds: 3}.seconds == int('3')",
            "xds.filter_state['wasm.a'][0].b(1, c)",
            "a.in.b == null",
            "[].all(e, e > 0)",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_none_is_told_where() {
        for (bad, column) in [
            ("", 1),
            ("response.code >=", 17),
            ("response.code >= 400)", 21),
            ("a b", 3),
            ("a ? b", 6),
            ("'open", 1),
            ("a.1", 2),
            ("f(a,)", 5),
            ("!-a", 2),
            ("1 ++ 2", 4),
            ("while", 1),
            ("a = b", 3),
            ("'\\q'", 2),
            ("{a}", 3),
            ("a @ b", 3),
            ("0x", 1),
        ] {
            let error = check(bad).expect_err(bad);
            assert_eq!(error.column, column, "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_too_deep_or_too_long_is_refused_and_not_followed() {
        let deep = |levels: usize| format!("{}a{}", "(".repeat(levels), ")".repeat(levels));
        assert_eq!(check(&deep(200)), Ok(()));
        assert!(check(&deep(40_000)).expect_err("deep").reason.contains("nested"));
        assert!(
            check(&"a".repeat(100_001))
                .expect_err("long")
                .reason
                .contains("at most")
        );
        assert_eq!(check(&format!("{}a", "!".repeat(50_000))), Ok(()));
    }
}
