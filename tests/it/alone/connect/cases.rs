//! What is asked.

use super::{ALLOWED, OWN_PORT_GOES, PORT_GOES, REFUSED};

/// What a client does after its head.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Sends this.
    Send(&'static str),
    /// Reads until nothing comes.
    Pause,
    /// Ends its side.
    End,
    /// Resets the stream or the connection.
    Reset,
}

use Step::{End, Pause, Reset, Send};

/// One exchange on a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) version: u8,
    pub(super) port: u16,
    pub(super) method: &'static str,
    /// `:authority`, or the target of the request line and `host`.
    pub(super) authority: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    pub(super) steps: &'static [Step],
    /// A line in the log has its name.
    pub(super) is_logged: bool,
}

const fn h1(name: &'static str, authority: &'static str, steps: &'static [Step]) -> Case {
    Case {
        name,
        version: 1,
        port: ALLOWED,
        method: "CONNECT",
        authority,
        headers: &[],
        steps,
        is_logged: true,
    }
}

const fn h2(name: &'static str, authority: &'static str, steps: &'static [Step]) -> Case {
    Case {
        version: 2,
        ..h1(name, authority, steps)
    }
}

impl Case {
    const fn refused(self) -> Self {
        Self {
            port: REFUSED,
            ..self
        }
    }

    const fn on(self, port: u16) -> Self {
        Self { port, ..self }
    }

    const fn method(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    const fn headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }
}

const TALK: &[Step] = &[
    Pause,
    Send("{n} hello"),
    Pause,
    Send("again"),
    Pause,
    Send("bye"),
    Pause,
];
const TALK_AND_END: &[Step] = &[Pause, Send("{n} hello"), Pause, End, Pause];
const TALK_AND_RESET: &[Step] = &[Pause, Send("{n} hello"), Pause, Reset, Pause];
const EAGER: &[Step] = &[Send("{n} hello"), Pause, Send("bye"), Pause];
/// The upstream says a word more after its client has ended its side, if that reached it.
const HALF: &[Step] = &[Pause, Send("{n} last"), Pause, End, Pause, Pause, Pause];
/// The upstream ends its side and listens on.
const UP_HALF: &[Step] = &[Pause, Send("{n} end"), Pause, Send("more"), Pause, Pause];
const UP_RESET: &[Step] = &[Pause, Send("{n} reset"), Pause];
const LARGE: &[Step] = &[
    Pause,
    Send("{n} hello"),
    Send("{large}"),
    Pause,
    Send("bye"),
    Pause,
];
const NOTHING: &[Step] = &[Pause, Pause];
const LONG_END: &[Step] = &[
    Pause,
    Send("{n} silence"),
    Pause,
    End,
    Pause,
    Pause,
    Pause,
    Pause,
    Pause,
    Pause,
];

pub(super) const CASES: &[Case] = &[
    h1("ends-talk", "ends:80", TALK),
    h1("ends-bye", "ends:80", TALK_AND_END),
    h1("ends-eager", "ends:80", EAGER),
    h1("ends-half", "ends:80", HALF),
    h1("ends-up-half", "ends:80", UP_HALF),
    h1("ends-up-reset", "ends:80", UP_RESET),
    h1("ends-reset", "ends:80", TALK_AND_RESET),
    h1("ends-large", "ends:80", LARGE),
    h2("ends-talk-2", "ends:80", TALK),
    h2("ends-bye-2", "ends:80", TALK_AND_END),
    h2("ends-eager-2", "ends:80", EAGER),
    h2("ends-half-2", "ends:80", HALF),
    h2("ends-up-half-2", "ends:80", UP_HALF),
    h2("ends-up-reset-2", "ends:80", UP_RESET),
    h2("ends-reset-2", "ends:80", TALK_AND_RESET),
    h2("ends-large-2", "ends:80", LARGE),
    h2("ends-silence-2", "ends:80", LONG_END),
    h1("passes-talk", "passes:80", TALK),
    h1("passes-bye", "passes:80", TALK_AND_END),
    h1("passes-eager", "passes:80", EAGER),
    h1("passes-half", "passes:80", HALF),
    h1("passes-up-half", "passes:80", UP_HALF),
    h1("passes-up-reset", "passes:80", UP_RESET),
    h1("passes-large", "passes:80", LARGE),
    h1("passes-no", "passes:80", &[Pause, Send("{n} more"), Pause])
        .headers(&[("x-say", "403 Forbidden^x-why: so^content-length: 2^^no")]),
    h1("passes-no-eager", "passes:80", &[Send("{n} more"), Pause])
        .headers(&[("x-say", "502 No^content-length: 2^^no")]),
    h1("passes-length", "passes:80", TALK).headers(&[("x-say", "200 OK^content-length: 5^^")]),
    h1("passes-chunked", "passes:80", TALK).headers(&[("x-say", "200 OK^transfer-encoding: chunked^^")]),
    h1("passes-first", "passes:80", TALK).headers(&[("x-say", "200 Ready^x-up: 1^^welcome")]),
    h1("passes-201", "passes:80", TALK).headers(&[("x-say", "201 Created^^")]),
    h1("passes-302", "passes:80", NOTHING)
        .headers(&[("x-say", "302 Found^location: /x^content-length: 0^^")]),
    h1("passes-close", "passes:80", NOTHING).headers(&[("x-say", "close")]),
    h1(
        "passes-silent",
        "passes:80",
        &[Pause, Pause, Pause, Pause, Pause, Pause],
    )
    .headers(&[("x-say", "nothing")]),
    h2("passes-talk-2", "passes:80", TALK),
    h2("passes-bye-2", "passes:80", TALK_AND_END),
    h2("passes-eager-2", "passes:80", EAGER),
    h2("passes-half-2", "passes:80", HALF),
    h2("passes-up-half-2", "passes:80", UP_HALF),
    h2("passes-no-2", "passes:80", NOTHING).headers(&[("x-say", "403 Forbidden^content-length: 2^^no")]),
    h1("passes2-talk", "passes2:80", TALK),
    h1("passes2-bye", "passes2:80", TALK_AND_END),
    h1("passes2-eager", "passes2:80", EAGER),
    h1("passes2-up-half", "passes2:80", UP_HALF),
    h1("passes2-no", "passes2:80", NOTHING).headers(&[("x-say", "403")]),
    h2("passes2-talk-2", "passes2:80", TALK),
    h2("passes2-half-2", "passes2:80", HALF),
    h2("passes2-up-half-2", "passes2:80", UP_HALF),
    h2("passes2-no-2", "passes2:80", NOTHING).headers(&[("x-say", "403")]),
    h2("passes2-large-2", "passes2:80", LARGE),
    h1("inherits", "inherits:80", TALK),
    h1("config-alone", "config-alone:80", EAGER),
    h1("disabled", "disabled:80", EAGER),
    h2("disabled-2", "disabled:80", EAGER),
    h1("dead", "dead:80", EAGER),
    h2("dead-2", "dead:80", EAGER),
    h1("dead-passes", "dead-passes:80", EAGER),
    h1("empty", "empty:80", EAGER),
    h1("unknown", "unknown:80", EAGER),
    h1("prefix", "prefix:80", EAGER),
    h2("prefix-2", "prefix:80", EAGER),
    h1("later", "later:80", TALK),
    h1("later-get", "later:80", NOTHING).method("GET"),
    h1("ends-get", "ends:80", NOTHING).method("GET"),
    h1("direct", "direct:80", EAGER),
    h2("direct-2", "direct:80", NOTHING),
    h1("moved", "moved:80", NOTHING),
    h1("nowhere", "nowhere:80", EAGER),
    h1("posts-connect", "posts:80", TALK),
    h1("posts", "posts:80", EAGER)
        .method("POST")
        .headers(&[("content-length", "15")]),
    h2("posts-2", "posts:80", HALF).method("POST"),
    h1("posts-not", "no-posts:80", &[Send("{n} hello"), Pause])
        .method("POST")
        .headers(&[("content-length", "15")]),
    h1("changes", "changes:80", TALK),
    h1("refused", "inherits:80", EAGER).refused(),
    h2("refused-2", "inherits:80", EAGER).refused(),
    h1("refused-route-on", "ends:80", TALK).refused(),
    h2("refused-route-on-2", "passes:80", TALK).refused(),
    h1("port-goes", "passes:80", TALK).on(PORT_GOES),
    h2("port-goes-2", "passes:80", TALK).on(PORT_GOES),
    h2("port-goes-2-2", "passes2:80", TALK).on(PORT_GOES),
    h1("port-goes-ends", "ends:80", TALK).on(PORT_GOES),
    h1("port-goes-changes", "changes:80", TALK).on(PORT_GOES),
    h1("port-goes-renames", "renames:80", TALK).on(PORT_GOES),
    h1("port-goes-shares", "shares:80", TALK).on(PORT_GOES),
    h1("port-goes-own", "passes:10003", TALK).on(OWN_PORT_GOES),
    h1("port-goes-other", "passes:81", NOTHING).on(OWN_PORT_GOES),
    h1("port-goes-listed", "passes:80", TALK).on(OWN_PORT_GOES),
];
